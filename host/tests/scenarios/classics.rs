//! Tests the classics: sums of a collection and of a socket, and words of files.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use fastrand::Rng;
use serde_json::{Value, json};

use crate::day::{example, folder_of, number, sorted, text};
use crate::everywhere::{collect_all, collect_everywhere, run_everywhere};
use crate::pipeline::{assert_same, plan_of};

type Sums = BTreeMap<String, (i64, i64)>;

/// Ids with quantities, of which one in a hundred is bad.
fn rows(rng: &mut Rng, count: usize) -> Vec<(String, Option<i64>)> {
    let row = |rng: &mut Rng| {
        let quantity = (rng.u8(0..100) > 0).then(|| rng.i64(-1_000..1_000));
        (format!("id-{}", rng.u8(0..50)), quantity)
    };
    (0..count).map(|_| row(rng)).collect()
}

/// Count and sum of each id.
fn sums<'a>(rows: impl Iterator<Item = (&'a str, i64, i64)>) -> Sums {
    let mut sums = Sums::new();
    for (id, count, sum) in rows {
        let of_id = sums.entry(id.to_owned()).or_default();
        *of_id = (of_id.0 + count, of_id.1 + sum);
    }
    sums
}

fn expected(rows: &[(String, Option<i64>)]) -> Sums {
    let good = rows.iter().filter_map(|(id, n)| Some((&**id, 1, (*n)?)));
    sums(good)
}

/// The sums of all windows together: which rows are in which depends on the clock.
fn found(results: &[Value]) -> Sums {
    let result = |row| (text(row, "id"), number(row, "count"), number(row, "sum"));
    sums(results.iter().map(result))
}

#[test]
fn a_collection_is_summed_by_id() {
    let rows = rows(&mut Rng::with_seed(5), 20_000);
    let lines: Vec<String> = rows
        .iter()
        .map(|(id, quantity)| json!({"id": id, "quantity": quantity}).to_string())
        .collect();
    let folder = folder_of(&[("rows.jsonl", &lines)]);
    let pipeline = example("sums/pipeline.toml").to_string();
    run_everywhere(&pipeline, folder.path(), ["out"], |when, [results]| {
        assert_eq!(found(&results), expected(&rows), "{when}");
    });
}

#[test]
fn a_socket_is_summed_by_id() {
    let rows = rows(&mut Rng::with_seed(6), 20_000);
    let lines: Vec<String> = rows
        .iter()
        .map(|(id, quantity)| match quantity {
            Some(quantity) => format!("{id},{quantity}\n"),
            None => format!("{id},many\n"),
        })
        .collect();
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.local_addr().expect("it has an address")
    };
    let mut pipeline = example("sums/socket.toml");
    pipeline["sources"]["rows"]["listen"] = address.to_string().into();
    let folder = folder_of(&[]);
    let plan = plan_of(&pipeline.to_string(), folder.path());
    let client = std::thread::spawn(move || {
        let mut stream = loop {
            match TcpStream::connect(address) {
                Ok(stream) => break stream,
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        };
        for piece in lines.concat().as_bytes().chunks(1_000) {
            stream.write_all(piece).expect("the other side listens");
        }
    });
    let ([results], summary) = collect_all(plan, ["out"]);
    client.join().expect("all is sent");
    assert_eq!(found(&results), expected(&rows));
    let bad = rows.iter().filter(|(_, quantity)| quantity.is_none());
    assert_eq!(summary.nodes[0].failed as usize, bad.count());
}

#[test]
fn words_of_files_are_counted() {
    let mut rng = Rng::with_seed(7);
    let vocabulary = ["Tea", "tea", "POT", "Zürich", "naïve", "42", "x1"];
    let between = [" ", "  ", ", ", "-", "...", "\t", "'"];
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    let files = ["lines/a.txt", "lines/b.txt", "lines/c.txt"].map(|name| {
        let mut lines = Vec::new();
        for _ in 0..1_000 {
            let mut line = String::new();
            for _ in 0..rng.usize(0..10) {
                let word = vocabulary[rng.usize(0..vocabulary.len())];
                line = line + word + between[rng.usize(0..between.len())];
                *counts.entry(word.to_lowercase()).or_default() += 1;
            }
            lines.push(line);
        }
        (name, lines)
    });
    let folder = folder_of(&files.each_ref().map(|(name, lines)| (*name, &lines[..])));
    let pipeline = example("words/pipeline.toml").to_string();
    let found = collect_everywhere(&pipeline, folder.path(), "counts_file");
    let expected = counts
        .iter()
        .map(|(word, count)| json!({"word": word, "count": count}));
    assert_same(&sorted(expected.collect()), &found, "counts");
}
