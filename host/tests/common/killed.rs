//! A real host that is killed, and a server that it writes to.

use std::collections::VecDeque;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sluicebox::checkpoint::crash::PLACES;

/// The longest run that is not killed.
pub const RUN_MAX: Duration = Duration::from_secs(300);

/// How often the host is killed where nobody says: at each named place, and at a few moments.
const KILLS: usize = PLACES.len() + 4;
/// How often the server is.
const SERVER_KILLS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Kill {
    /// The host, at this time after the start.
    After(Duration),
    /// The host, when it reaches this place for the nth time.
    At(&'static str, u32),
    /// The server, at this time after the start, for so long.
    Server(Duration, Duration),
}

/// Kills that are still to come.
pub struct Kills<'a> {
    planned: VecDeque<Kill>,
    /// Whether one that came too late, since the host had ended, is made up for.
    is_made_up_for: bool,
    random: Rng,
    /// Has the server's script kill it, or start it again.
    server: &'a dyn Fn(&str),
}

/// Runs one pipeline after another, until as many kills were made as the environment asks
/// for; where it does not, each is tried once. `round` has each come to its end by
/// [`Kills::run`], looks at its rows, and returns how many kills there were.
pub fn in_rounds(server: &dyn Fn(&str), round: impl FnMut(usize, &mut Kills<'_>) -> usize) {
    in_rounds_of((KILLS, SERVER_KILLS), server, round);
}

/// As [`in_rounds`], with so many kills of the host and of the server where nobody says.
pub fn in_rounds_of(
    (kills, servers): (usize, usize),
    server: &dyn Fn(&str),
    mut round: impl FnMut(usize, &mut Kills<'_>) -> usize,
) {
    let wanted = number("SLUICEBOX_KILLS");
    let kills = wanted.map_or(kills, |kills| kills as usize);
    let servers = number("SLUICEBOX_SERVER_KILLS").map_or(servers, |kills| kills as usize);
    let seed = number("SLUICEBOX_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("{kills} kills, {servers} of the server, SLUICEBOX_SEED={seed}");
    let mut random = Rng::with_seed(seed);
    let mut planned: VecDeque<Kill> = (0..kills).map(|number| draw(number, &mut random)).collect();
    for number in 0..servers {
        let moment = Duration::from_millis(random.u64(100..1_500));
        let gone = Duration::from_millis(random.u64(0..700));
        let at = (number * planned.len().max(1) / servers).min(planned.len());
        planned.insert(at, Kill::Server(moment, gone));
    }
    let mut kills = Kills {
        planned,
        is_made_up_for: wanted.is_some(),
        random,
        server,
    };
    let mut done = 0;
    for number in 0.. {
        if kills.planned.is_empty() {
            break;
        }
        done += round(number, &mut kills);
        eprintln!("round {number}: {done} kills, nothing lost, nothing doubled");
    }
}

/// Every place comes first, then moments.
fn draw(number: usize, random: &mut Rng) -> Kill {
    let moment = |random: &mut Rng| Duration::from_millis(random.u64(20..2_500));
    match PLACES.get(number) {
        Some((place, _)) => Kill::At(place, random.u32(1..6)),
        None if random.u32(0..3) == 0 => {
            Kill::At(PLACES[random.usize(0..PLACES.len())].0, random.u32(1..20))
        }
        None => Kill::After(moment(random)),
    }
}

impl Kills<'_> {
    /// Runs a pipeline with kills until it ends by itself. Returns how many there were.
    pub fn run(&mut self, pipeline: &Path, log: &Path) -> usize {
        let began = Instant::now();
        let mut done = 0;
        loop {
            let kill = self.planned.pop_front();
            let mut is_server_killed = false;
            let crash_at = match kill {
                Some(Kill::At(place, times)) => Some(format!("{place}:{times}")),
                _ => None,
            };
            let mut host = start(pipeline, log, crash_at);
            let ended = match kill {
                None => wait(&mut host, RUN_MAX),
                Some(Kill::After(time)) => wait(&mut host, time),
                Some(Kill::At(..)) => wait(&mut host, Duration::from_secs(60)),
                Some(Kill::Server(before, gone)) => wait(&mut host, before).or_else(|| {
                    (self.server)("kill");
                    std::thread::sleep(gone);
                    (self.server)("again");
                    is_server_killed = true;
                    wait(&mut host, RUN_MAX)
                }),
            };
            let _ = host.kill();
            host.wait().expect("it is our child");
            match (kill, ended) {
                (_, Some(ended)) if ended.success() && is_server_killed => return done + 1,
                (kill, Some(ended)) if ended.success() => {
                    if let Some(missed) = kill.filter(|_| self.is_made_up_for) {
                        self.make_up_for(missed, began.elapsed());
                    }
                    return done;
                }
                (Some(Kill::Server(..)) | None, ended) => {
                    panic!("it fails: {kill:?}: {ended:?}\n{}", tail(log));
                }
                (Some(kill), Some(ended)) if ended.code().is_some() => {
                    panic!("it fails: {kill:?}: {ended}\n{}", tail(log));
                }
                (Some(kill), _) => {
                    done += 1;
                    eprintln!("{kill:?}");
                }
            }
        }
    }

    /// Plans a kill instead of one that came too late in a round that took so long.
    fn make_up_for(&mut self, missed: Kill, round: Duration) {
        let longest = u64::try_from(round.as_millis()).unwrap_or(u64::MAX).max(50);
        let moment = Duration::from_millis(self.random.u64(20..longest));
        self.planned.push_back(match missed {
            Kill::At(place, times) if times > 1 => Kill::At(place, 1),
            Kill::At(..) | Kill::After(_) => Kill::After(moment),
            Kill::Server(_, gone) => Kill::Server(moment, gone),
        });
    }
}

/// The host, to which the environment says the password of servers.
pub fn host() -> Command {
    let built = env!("CARGO_BIN_EXE_sluicebox");
    let mut command = Command::new(std::env::var("SLUICEBOX_HOST").unwrap_or(built.to_owned()));
    command
        .env("SHOP_PASSWORD", "s3cret")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// Starts a run, which is killed when it comes to a place.
pub fn start(pipeline: &Path, log: &Path, crash_at: Option<String>) -> Child {
    let log = File::options().create(true).append(true).open(log);
    let log = log.expect("it is writable");
    let mut command = host();
    command
        .args(["run", "--quiet"])
        .arg(pipeline)
        .stdout(Stdio::null())
        .stderr(log);
    if let Some(place) = crash_at {
        command.env("SLUICEBOX_CRASH_AT", place);
    }
    command.spawn().expect("the host starts")
}

/// Waits for the end of a run, so long.
pub fn wait(host: &mut Child, time: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + time;
    loop {
        if let Some(ended) = host.try_wait().expect("it is our child") {
            return Some(ended);
        }
        if Instant::now() >= until {
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// A number of the environment.
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} must be a number, and is {text:?}")))
}
