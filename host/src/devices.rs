//! Opens what is written as it comes: devices, pipes, and what the process was started
//! with.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::descriptors::duplicate_to_write;
use crate::offload::blocking;
use crate::paths::{descriptor, is_device};
use crate::stop::Stop;

/// How often a pipe is looked at that nobody reads.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long a run that is to stop waits for the reader of a full pipe. What the pipe did
/// before the signal does not count: a reader that was late may just have come back.
const ROOM_WAIT: Duration = Duration::from_secs(1);

/// Whether a path leads to a pipe in a folder, which may get a reader at any time.
pub fn is_named_pipe(path: &Path) -> bool {
    let found = fs::metadata(path);
    found.is_ok_and(|found| found.file_type().is_fifo()) && !is_device(path)
}

/// The devices of the memory (`mem`, `kmem`, `port`) and the one that is always full, by their
/// numbers.
const MEMORY: [(u32, u32); 3] = [(1, 1), (1, 2), (1, 4)];
const FULL: (u32, u32) = (1, 7);

/// What the system makes up when it is read, and what is not kept when it is written.
const MADE_UP: [libc::c_long; 7] = [
    libc::PROC_SUPER_MAGIC,
    libc::SYSFS_MAGIC,
    libc::CGROUP_SUPER_MAGIC,
    libc::CGROUP2_SUPER_MAGIC,
    libc::DEBUGFS_MAGIC,
    libc::TRACEFS_MAGIC,
    libc::SECURITYFS_MAGIC,
];

/// Refuses what no rows can be written to, and what would be destroyed by them.
pub fn check_keeps_rows(path: &Path) -> io::Result<()> {
    if descriptor(path).is_some() {
        return Ok(());
    }
    let Ok(found) = fs::metadata(path) else {
        // It is opened next, or made.
        return Ok(());
    };
    let device = (libc::major(found.rdev()), libc::minor(found.rdev()));
    let is_device = found.file_type().is_char_device();
    let what = if found.file_type().is_block_device() {
        "it is a disk (a block device), and what is on it would be written over"
    } else if is_device && MEMORY.contains(&device) {
        "it is the memory of the machine"
    } else if is_device && device == FULL {
        "it is a device that is always full"
    } else if rustix::fs::statfs(path).is_ok_and(|it| MADE_UP.contains(&(it.f_type as _))) {
        "it is a file of the system, which keeps no rows"
    } else {
        return Ok(());
    };
    let message = format!("{what}: give the path of a file or a pipe");
    Err(io::Error::new(ErrorKind::InvalidInput, message))
}

/// Opens it, and waits for nobody: a pipe without a reader is an error of the kind
/// [`ErrorKind::BrokenPipe`].
pub fn open(path: &Path) -> io::Result<File> {
    if let Some(number) = descriptor(path) {
        return duplicate_to_write(number);
    }
    check_keeps_rows(path)?;
    let mut options = File::options();
    options.append(true).custom_flags(libc::O_NONBLOCK);
    match options.open(path) {
        Ok(file) => wait_in_writes(&file).map(|()| file),
        Err(cause) if cause.raw_os_error() == Some(libc::ENXIO) && is_pipe(path) => Err(
            io::Error::new(ErrorKind::BrokenPipe, "nobody reads this pipe"),
        ),
        Err(cause) if cause.raw_os_error() == Some(libc::ENXIO) && is_socket(path) => {
            let message = "it is a socket, which has no name for what is written: give the path \
                           of a file or a pipe";
            Err(io::Error::new(ErrorKind::InvalidInput, message))
        }
        Err(cause) => Err(cause),
    }
}

/// Waits until somebody reads a pipe. Readers do not see its end while the returned file
/// is open.
pub async fn open_with_reader(path: &Path, what: &str) -> io::Result<File> {
    let mut is_told = false;
    loop {
        match open(path) {
            Err(cause) if cause.kind() == ErrorKind::BrokenPipe => {}
            opened => return opened,
        }
        if !std::mem::replace(&mut is_told, true) {
            let path = path.display();
            tracing::info!("{what}: nobody reads the pipe {path} yet, and the run waits for it");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Writes to a pipe or a device, which has no room for as long as nobody reads it: it is
/// waited for, but not any more when the run was asked to stop.
pub struct DeviceWriter<'a> {
    pub file: &'a File,
    pub stop: &'a Stop,
}

impl DeviceWriter<'_> {
    /// Waits for room, or to learn that nobody reads it any more.
    fn wait_for_room(&self) -> io::Result<()> {
        let mut asked_since = None;
        while !has_room(self.file, LOOK_EVERY)? {
            if self.stop.asked()
                && asked_since.get_or_insert_with(Instant::now).elapsed() > ROOM_WAIT
            {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    "nobody reads what was written, and the run was asked to stop",
                ));
            }
        }
        Ok(())
    }
}

impl Write for DeviceWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let bytes = &bytes[..at_once(bytes)];
        loop {
            if !has_room(self.file, Duration::ZERO)? {
                // Other tasks go on meanwhile, those of other pipelines among them.
                blocking(|| self.wait_for_room())?;
            }
            match self.file.write(bytes) {
                // Whoever shares it was faster, and has made it one that nobody waits at.
                Err(cause) if cause.kind() == ErrorKind::WouldBlock => {}
                written => return written,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// How much is written in one piece: a pipe that has room takes so much, and does not wait,
/// and nobody else's line comes in between. The log may go to the same pipe, so that a piece
/// ends with a line, unless that is longer.
fn at_once(bytes: &[u8]) -> usize {
    let most = &bytes[..bytes.len().min(libc::PIPE_BUF)];
    let end_of_line = most.iter().rposition(|byte| *byte == b'\n');
    end_of_line.map_or(most.len(), |last| last + 1)
}

/// Standard output, as [`DeviceWriter`] writes it.
pub struct StandardOutput {
    file: File,
    stop: Stop,
}

impl StandardOutput {
    pub fn new(stop: Stop) -> io::Result<Self> {
        let file = duplicate_to_write(1)?;
        Ok(StandardOutput { file, stop })
    }
}

impl Write for StandardOutput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (file, stop) = (&self.file, &self.stop);
        DeviceWriter { file, stop }.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether something can be written by then, be it to learn that nobody reads it any more.
fn has_room(file: &File, within: Duration) -> io::Result<bool> {
    let mut asked = libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: there is one, which is written while the call lasts.
    let found = unsafe { libc::poll(&raw mut asked, 1, within.as_millis() as libc::c_int) };
    match found {
        -1 => match io::Error::last_os_error() {
            cause if cause.kind() == ErrorKind::Interrupted => Ok(false),
            cause => Err(cause),
        },
        found => Ok(found > 0),
    }
}

fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo())
}

fn is_socket(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// A write to a full pipe waits for its reader.
fn wait_in_writes(file: &File) -> io::Result<()> {
    let descriptor = file.as_raw_fd();
    // SAFETY: the descriptor is open, and these only get and set its flags.
    let set = unsafe {
        match libc::fcntl(descriptor, libc::F_GETFL) {
            -1 => -1,
            flags => libc::fcntl(descriptor, libc::F_SETFL, flags & !libc::O_NONBLOCK),
        }
    };
    match set {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_line_is_written_in_one_piece() {
        let short = b"{\"id\":\"a\",\"n\":1}\n".repeat(1_000);
        let long = vec![b'x'; 3 * libc::PIPE_BUF];
        let text = [&short, &*long, b"\n", &short, b"cut"].concat();
        let (mut rest, mut pieces) = (&*text, 0);
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(at_once(rest));
            assert!(piece.len() <= libc::PIPE_BUF);
            let is_short = piece.starts_with(b"{");
            assert!(
                !is_short || piece.ends_with(b"}\n"),
                "{} are left",
                rest.len()
            );
            (rest, pieces) = (more, pieces + 1);
        }
        assert!(pieces < 2 + text.len() / (libc::PIPE_BUF / 2), "{pieces}");
    }

    /// With one thread for all tasks, all would stand still.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_go_on_while_a_pipe_is_full() {
        let (mut read, write) = io::pipe().expect("a pipe");
        let file = File::from(std::os::fd::OwnedFd::from(write));
        let (full, is_full) = tokio::sync::oneshot::channel();
        let writing = tokio::spawn(async move {
            let stop = Stop::default();
            let (file, stop) = (&file, &stop);
            while has_room(file, Duration::ZERO).expect("it is open") {
                DeviceWriter { file, stop }.write_all(&[b'x'; libc::PIPE_BUF])?;
            }
            full.send(()).expect("the test waits");
            DeviceWriter { file, stop }.write_all(b"last")
        });
        is_full.await.expect("it is full");
        let (other, has_run) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            let has_run = has_run.recv_timeout(Duration::from_secs(60));
            let mut text = Vec::new();
            read.read_to_end(&mut text).map(|_| (has_run, text))
        });
        let other = tokio::spawn(async move { other.send(()) });
        writing.await.expect("it ends").expect("it is read");
        other.await.expect("it ends").expect("the reader waits");
        let (has_run, text) = reader.join().expect("it ends").expect("it is open");
        assert_eq!(has_run, Ok(()));
        assert!(text.ends_with(b"xlast"));
    }

    #[tokio::test]
    async fn a_pipe_is_waited_for_and_then_written_whole() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("pipe");
        let made = Command::new("mkfifo").arg(&path).status();
        assert!(made.expect("it is there").success());
        let cause = open(&path).expect_err("nobody reads it");
        assert_eq!(cause.kind(), ErrorKind::BrokenPipe);
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                std::thread::sleep(3 * LOOK_EVERY);
                let mut file = File::open(path).expect("a pipe");
                std::thread::sleep(LOOK_EVERY);
                let mut text = Vec::new();
                file.read_to_end(&mut text).expect("it can be read");
                text.len()
            }
        });
        let mut file = open_with_reader(&path, "the test")
            .await
            .expect("it is read");
        // More than a pipe takes at once.
        file.write_all(&[b'x'; 1 << 20]).expect("it is read");
        drop(file);
        assert_eq!(reader.join().expect("it reads"), 1 << 20);
    }
}
