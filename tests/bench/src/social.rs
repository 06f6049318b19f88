//! Runs the example `notify` as it is on a generated social network, in which few are
//! followed by many: an action is told to all who follow.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use serde_json::json;
use sluicebox::clock::SystemClock;
use sluicebox::config::Config;
use sluicebox::planner;
use sluicebox::plugin::PluginLoader;
use sluicebox::run::Job;
use sluicebox::timestamp;

use crate::{Arguments, START_MS};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Case {
    Notify,
}

const USERS: usize = 20_000;
/// How many others a user follows at first.
const FOLLOWED: usize = 10;
/// Actions of all users in a second, of event time.
const ACTIONS_A_SECOND: u64 = 20;

/// The pipeline, with files of its own in place of those of its test.
const PIPELINE: &str = "examples/notify/pipeline.toml";
const INPUT: &str = "tests/small/input/actions.jsonl";

pub fn measure(arguments: &Arguments) -> anyhow::Result<Vec<serde_json::Value>> {
    // Each action makes several rows.
    let actions = arguments.rows.div_ceil(10);
    let path = arguments.folder.join(format!("actions-{actions}.jsonl"));
    if !path.exists() {
        eprintln!("writing {actions} actions to {}", path.display());
        let unfinished = path.with_extension("part");
        write_actions(actions, &unfinished)?;
        fs::rename(&unfinished, &path)?;
    }
    let out = tempfile::tempdir()?;
    let text = fs::read_to_string(PIPELINE).with_context(|| format!("reading {PIPELINE}"))?;
    let text = text
        .replace(INPUT, &fs::canonicalize(&path)?.to_string_lossy())
        .replace("\"out/", &format!("\"{}/", out.path().display()));
    let config = Config::parse(PIPELINE, &text).map_err(anyhow::Error::from)?;
    let folder = Path::new(PIPELINE).parent().context("a folder")?;
    let loader = PluginLoader::new()?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut seconds = Vec::new();
    let mut notifications = 0;
    for _ in 0..arguments.repeats {
        let plan = planner::build(&config, folder, &loader).map_err(anyhow::Error::from)?;
        let started = Instant::now();
        let summary = runtime.block_on(Job::new(plan, Arc::new(SystemClock)).run())?;
        seconds.push(started.elapsed().as_secs_f64());
        let sent = summary
            .nodes
            .iter()
            .find(|node| node.name == "notifications");
        notifications = sent.context("a sink")?.rows_in;
        let source = &summary.nodes[0];
        ensure!(source.failed == 0, "{} bad rows", source.failed);
        ensure!(notifications > 0, "nobody is told anything");
    }
    seconds.sort_by(f64::total_cmp);
    let seconds = seconds[seconds.len() / 2];
    let rows_per_second = actions as f64 / seconds;
    eprintln!(
        "notify: {:.3} M actions/s, {notifications} notifications",
        rows_per_second / 1e6
    );
    Ok(vec![json!({
        "case": "notify",
        "rows": actions,
        "notifications": notifications,
        "seconds": seconds,
        "rows_per_second": rows_per_second,
    })])
}

/// At first everybody follows others; then there are posts, and likes and comments of them.
fn write_actions(actions: u64, path: &Path) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut file = BufWriter::new(File::create(path)?);
    let mut posts = 0_u64;
    let follows = (actions / 4).min((USERS * FOLLOWED) as u64);
    let mut line = String::new();
    for action in 0..actions {
        let actor = random.usize(..USERS);
        let author = popular(&mut random);
        let kind = match random.u8(..20) {
            _ if action < follows => "follow",
            0 => "follow",
            1 => "unfollow",
            2..6 => "post",
            6..9 => "comment",
            _ => "like",
        };
        let (author, post) = match kind {
            "follow" | "unfollow" => (author, String::new()),
            "post" => {
                posts += 1;
                (actor, format!("p{posts}"))
            }
            _ => (author, format!("p{}", random.u64(..=posts))),
        };
        let time_ms = START_MS + (action / ACTIONS_A_SECOND) as i64 * 1_000;
        let ts = timestamp::to_text(time_ms);
        let fields = format!("u{actor}\n{kind}\nu{author}\n{post}\n{ts}");
        let checksum = crc32fast::hash(fields.as_bytes());
        line.clear();
        writeln!(
            line,
            r#"{{"actor":"u{actor}","kind":"{kind}","author":"u{author}","post_id":"{post}","ts":"{ts}","checksum":"{checksum:08x}"}}"#
        )?;
        file.write_all(line.as_bytes())?;
    }
    file.flush()?;
    Ok(())
}

/// A user, the first of whom are chosen far more often than the last.
fn popular(random: &mut fastrand::Rng) -> usize {
    (random.f64().powi(3) * USERS as f64) as usize
}
