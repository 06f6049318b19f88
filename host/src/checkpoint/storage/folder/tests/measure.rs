//! `cargo test --release --lib folder::tests::measure -- --ignored --nocapture`
//!
//! `SLUICEBOX_MEASURE_ROWS` (in millions, default 10) says how large the state is.

use std::time::{Duration, Instant};

use super::*;

const CHANGED: u64 = 200_000;
const CHECKPOINTS: u64 = 40;
const VALUE_BYTES: usize = 20;

fn million_rows() -> u64 {
    let given = std::env::var("SLUICEBOX_MEASURE_ROWS").ok();
    given.and_then(|text| text.parse().ok()).unwrap_or(10) * 1_000_000
}

fn key(number: u64, bytes: &mut Vec<u8>) {
    bytes.extend(3_u32.to_be_bytes());
    // Scattered, as keys behind a shard are.
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bytes.extend(scattered.to_be_bytes());
    bytes.extend(number.to_be_bytes());
}

fn change(numbers: impl Iterator<Item = u64>, round: u64) -> Changes {
    let mut changes = Changes::default();
    for number in numbers {
        changes.put(
            |bytes| key(number, bytes),
            |bytes| {
                let mut value = [0x5a; VALUE_BYTES];
                value[..8].copy_from_slice(&number.to_le_bytes());
                value[8..16].copy_from_slice(&round.to_le_bytes());
                bytes.extend(value);
            },
        );
    }
    changes
}

/// Time that all threads of this process have spent on a core.
fn core_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = after_name
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn bytes_in(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).expect("a folder");
    let lengths = entries.map(|entry| entry.expect("an entry").metadata().expect("metadata").len());
    lengths.sum()
}

#[test]
#[ignore = "takes minutes, and shows times"]
fn checkpoints_of_a_large_state() {
    let folder = folder();
    let storage = FolderStorage::open(folder.path(), 128 << 20).expect("a storage");
    let count = million_rows();
    let started = Instant::now();
    let all = (0..8)
        .map(|part| change(part * count / 8..(part + 1) * count / 8, 0))
        .collect();
    println!("{count} rows made in {:.2?}", started.elapsed());
    let started = Instant::now();
    let info = storage.write(manifest(1), all).expect("a checkpoint");
    println!(
        "all of them written in {:.2?}: {} MB",
        started.elapsed(),
        info.bytes >> 20
    );

    let mut random = fastrand::Rng::with_seed(7);
    let mut times = Vec::new();
    let (mut reading, mut read) = (Duration::ZERO, 0);
    let before = core_time();
    let started = Instant::now();
    let mut preparing = Duration::ZERO;
    let mut reading_core = Duration::ZERO;
    for id in 2..2 + CHECKPOINTS {
        let from = core_time();
        let changes = change((0..CHANGED).map(|_| random.u64(0..count)), id);
        preparing += core_time() - from;
        let one = Instant::now();
        let info = storage
            .write(manifest(id), vec![changes])
            .expect("a checkpoint");
        times.push(one.elapsed());
        if id > 4 {
            storage.delete(id - 3).expect("a checkpoint to drop");
        }
        let keys: Vec<Vec<u8>> = (0..20_000)
            .map(|_| {
                let mut bytes = Vec::new();
                key(random.u64(0..count), &mut bytes);
                bytes
            })
            .collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let one = Instant::now();
        let from = core_time();
        for keys in keys.chunks(1_000) {
            let values = storage.get_many(keys).expect("values");
            assert!(values.iter().all(Option::is_some));
        }
        reading += one.elapsed();
        reading_core += core_time() - from;
        read += keys.len();
        if id % 8 == 0 {
            println!("  checkpoint {id}: {} MB", info.bytes >> 20);
        }
        std::thread::sleep(Duration::from_secs(1).saturating_sub(times[times.len() - 1]));
    }
    let wall = started.elapsed();
    let used = core_time() - before - preparing - reading_core;
    times.sort();
    println!(
        "{CHANGED} rows a checkpoint: {:.2?} (slowest {:.2?}), {:.0} ms of a core a checkpoint, \
         {:.1}% of two cores",
        times[times.len() / 2],
        times[times.len() - 1],
        used.as_secs_f64() * 1e3 / CHECKPOINTS as f64,
        used.as_secs_f64() / wall.as_secs_f64() * 50.0,
    );
    println!(
        "read by key: {:.1} us a row, {:.1} us of a core",
        reading.as_secs_f64() * 1e6 / read as f64,
        reading_core.as_secs_f64() * 1e6 / read as f64
    );
    let last = 1 + CHECKPOINTS;
    println!(
        "the last checkpoint: {} MB in {} files",
        bytes_in(&storage.archive.path(last)) >> 20,
        fs::read_dir(storage.archive.path(last))
            .expect("a folder")
            .count()
    );

    // Where that is allowed, as after a start of the machine.
    let is_cold = fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
    println!(
        "files are {}",
        if is_cold { "read from disk" } else { "cached" }
    );
    let started = Instant::now();
    storage.archive.verify(last).expect("a whole checkpoint");
    println!("verified in {:.2?}", started.elapsed());
    let started = Instant::now();
    storage.restore(last).expect("the last checkpoint");
    println!("restored in {:.2?}", started.elapsed());
    let started = Instant::now();
    let mut rows = 0_u64;
    let scanned = storage.scan(b"", b"\xff", &mut |_, _| {
        rows += 1;
        true
    });
    scanned.expect("rows");
    println!("{rows} rows scanned in {:.2?}", started.elapsed());
    assert_eq!(rows, count);
}

#[test]
#[ignore = "shows times"]
fn small_checkpoints() {
    let folder = folder();
    let storage = FolderStorage::open(folder.path(), 128 << 20).expect("a storage");
    let mut times = Vec::new();
    for id in 1..=200 {
        let changes = change((0..1_000).map(|number| number * 31 + id), id);
        let started = Instant::now();
        storage
            .write(manifest(id), vec![changes])
            .expect("a checkpoint");
        times.push(started.elapsed());
        if id > 3 {
            storage.delete(id - 3).expect("a checkpoint to drop");
        }
    }
    times.sort();
    println!(
        "1,000 rows a checkpoint: {:.2?}, slowest {:.2?}",
        times[100], times[199]
    );
}
