//! Cases that must pass and cases that must fail: tests have to find operators
//! whose results depend on how a run happens to go.

use std::fs;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{ArrayRef, Int64Array};

use super::*;
use crate::logic::Limits;
use crate::logic::{
    Accumulated, Aggregate, Callee, Columns, Factory, Failure as LogicFailure, Grouped, Instance,
    Kind, ModuleInfo, OperatorInfo, Output, Port, Rows, States, Transform, Transformed,
    Value as Argument,
};
use crate::schema::{DataType, Field, Schema};

/// Native operators for a column `n`.
#[derive(Clone, Copy, Debug)]
enum Operator {
    Fold(Fold),
    /// Wrong: depends on where batches are cut.
    Together,
    /// Right: a filter that keeps the numbers below 10.
    Small,
}

#[derive(Clone, Copy, Debug)]
enum Fold {
    /// Right: the sum.
    Sum,
    /// Wrong: depends on the order, the latest value.
    Last,
}

struct Together;
struct Small;

impl Operator {
    fn info(self) -> OperatorInfo {
        let schema = || Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let (name, kind, state) = match self {
            Operator::Fold(Fold::Sum) => ("sum", Kind::Aggregate, schema()),
            Operator::Fold(Fold::Last) => ("last", Kind::Aggregate, schema()),
            Operator::Together => ("together", Kind::Transform, Arc::default()),
            Operator::Small => ("small", Kind::Filter, Arc::default()),
        };
        let ports = vec![Port::main(schema())];
        OperatorInfo {
            state,
            ..OperatorInfo::new(name, kind, ports.clone(), ports)
        }
    }
}

impl Fold {
    fn fold(self, state: i64, n: i64) -> i64 {
        match self {
            Fold::Last => n,
            Fold::Sum => state + n,
        }
    }
}

const OPERATORS: [Operator; 4] = [
    Operator::Fold(Fold::Sum),
    Operator::Fold(Fold::Last),
    Operator::Together,
    Operator::Small,
];

struct Native;

impl Loader for Native {
    fn load(&self, _path: &Path) -> Result<Arc<dyn Module>, LoadError> {
        Ok(Arc::new(NativeModule(ModuleInfo {
            name: "native".to_owned(),
            version: String::new(),
            doc: String::new(),
            operators: OPERATORS.map(Operator::info).to_vec(),
        })))
    }
}

struct NativeModule(ModuleInfo);

impl Module for NativeModule {
    fn info(&self) -> &ModuleInfo {
        &self.0
    }

    fn factory(
        &self,
        name: &str,
        _arguments: &[(String, Argument)],
        _limits: Limits,
        _label: &str,
    ) -> Result<Arc<dyn Factory>, LogicFailure> {
        let operator = OPERATORS
            .into_iter()
            .find(|operator| operator.info().name == name);
        let operator = operator.expect("the plan has found it");
        Ok(Arc::new(NativeFactory(operator, operator.info())))
    }
}

struct NativeFactory(Operator, OperatorInfo);

impl Factory for NativeFactory {
    fn info(&self) -> &OperatorInfo {
        &self.1
    }

    fn instance(&self) -> Result<Instance, LogicFailure> {
        Ok(match self.0 {
            Operator::Fold(fold) => Instance::Aggregate(Box::new(fold)),
            Operator::Together => Instance::Transform(Box::new(Together)),
            Operator::Small => Instance::Transform(Box::new(Small)),
        })
    }
}

fn numbers(columns: Columns<'_>) -> Vec<i64> {
    columns.columns[0]
        .as_primitive::<Int64Type>()
        .values()
        .to_vec()
}

fn column(numbers: Vec<i64>) -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from(numbers))]
}

impl Callee for Together {}

impl Transform for Together {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, LogicFailure> {
        Ok(Transformed {
            output: Output::Rows(Rows {
                parents: (0..input.rows as u32).collect(),
                columns: column(vec![input.rows as i64; input.rows]),
            }),
            rejects: Vec::new(),
        })
    }
}

impl Callee for Small {}

impl Transform for Small {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, LogicFailure> {
        let numbers = (0..).zip(numbers(input));
        let small = numbers.filter(|(_, n)| *n < 10);
        Ok(Transformed {
            output: Output::Selection(small.map(|(row, _)| row).collect()),
            rejects: Vec::new(),
        })
    }
}

impl Callee for Fold {}

impl Aggregate for Fold {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, LogicFailure> {
        let Grouped { input, groups, .. } = rows;
        let mut folded = match states.existing.rows {
            0 => Vec::new(),
            _ => numbers(states.existing),
        };
        folded.resize(states.groups, 0);
        for (n, &group) in numbers(input).into_iter().zip(groups) {
            folded[group as usize] = self.fold(folded[group as usize], n);
        }
        Ok(Accumulated {
            states: column(folded),
            rejects: Vec::new(),
        })
    }

    fn accumulate_each(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
        _keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), LogicFailure> {
        let Grouped { input, groups, .. } = rows;
        let mut folded = match states.existing.rows {
            0 => Vec::new(),
            _ => numbers(states.existing),
        };
        folded.resize(states.groups, 0);
        let mut results = Vec::new();
        for (n, &group) in numbers(input).into_iter().zip(groups) {
            folded[group as usize] = self.fold(folded[group as usize], n);
            results.push(folded[group as usize]);
        }
        let rows = Rows {
            parents: (0..results.len() as u32).collect(),
            columns: column(results),
        };
        let accumulated = Accumulated {
            states: column(folded),
            rejects: Vec::new(),
        };
        Ok((accumulated, rows))
    }

    fn merge(
        &mut self,
        states: Columns<'_>,
        groups: &[u32],
    ) -> Result<Vec<ArrayRef>, LogicFailure> {
        let mut merged: Vec<Option<i64>> = Vec::new();
        for (n, &group) in numbers(states).into_iter().zip(groups) {
            merged.resize(group as usize + 1, None);
            let state = &mut merged[group as usize];
            *state = Some(state.map_or(n, |state| self.fold(state, n)));
        }
        Ok(column(merged.into_iter().flatten().collect()))
    }

    fn finish(
        &mut self,
        states: Columns<'_>,
        _keys: Columns<'_>,
        starts: &[i64],
        _ends: &[i64],
    ) -> Result<Rows, LogicFailure> {
        Ok(Rows {
            parents: (0..starts.len() as u32).collect(),
            columns: states.columns.to_vec(),
        })
    }
}

/// A pipeline with one operator, and one case of it.
struct Bench {
    folder: tempfile::TempDir,
}

/// Numbers of three users: the third row is out of order, the ninth so late
/// that its window has fired, the fifth and sixth cannot be decoded.
const ROWS: &str = r#"{"user":"a","n":1,"ts":1000}
{"user":"b","n":2,"ts":2500}
{"user":"a","n":3,"ts":1500}
{"user":"c","n":4,"ts":3000}
{"user":"c","n":"many","ts":3000}
{"user":"c"
{"user":"b","n":5,"ts":4000}
{"user":"a","n":6,"ts":12000}
{"user":"a","n":7,"ts":9000}
{"user":"c","n":8,"ts":11000}
{"user":"c","n":9,"ts":11001}
{"user":"b","n":10,"ts":13000}
"#;

const SUMS: &str = r#"{"user":"a","window_start":0,"window_end":10000,"n":4}
{"user":"b","window_start":0,"window_end":10000,"n":7}
{"user":"c","window_start":0,"window_end":10000,"n":4}
{"user":"a","window_start":10000,"window_end":20000,"n":6}
{"user":"c","window_start":10000,"window_end":20000,"n":17}
{"user":"b","window_start":10000,"window_end":20000,"n":10}
"#;

impl Bench {
    fn new(operator: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let bench = Bench { folder };
        bench.write(
            "pipeline.toml",
            &format!(
                r#"
                name = "bench"
                plugins.native.path = "native.wasm"
                [sources.rows]
                type = "file"
                path = "nowhere.jsonl"
                format = "json"
                event_time = "ts"
                watermark = {{ out_of_orderness = "2s" }}
                fields = {{ user = "utf8", n = "int64", ts = "timestamp" }}
                [operators.result]
                input = "rows"
                {operator}
                [sinks.out]
                type = "blackhole"
                input = "result"
                "#
            ),
        );
        bench.write("tests/case/input/rows.jsonl", ROWS);
        bench
    }

    fn windowed(operator: &str) -> Self {
        Bench::new(&format!(
            "plugin = \"native.{operator}\"\nkey = \"user\"\nwindow = {{ tumbling = \"10s\" }}"
        ))
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
        fs::write(path, text).expect("writable");
    }

    fn expect(self, name: &str, rows: &str) -> Self {
        self.write(&format!("tests/case/expected/{name}.jsonl"), rows);
        self
    }

    fn case(&self) -> Case {
        let cases = find(self.folder.path()).expect("there is a case");
        assert_eq!(cases.len(), 1);
        cases[0].clone()
    }

    fn run(&self) -> Outcome {
        run(&self.case(), &Native, 1).unwrap_or_else(|error| panic!("{error}"))
    }

    fn refused(&self) -> String {
        let outcome = run(&self.case(), &Native, 1);
        let error = outcome.expect_err("this case is wrong").to_string();
        let folder = self.folder.path().canonicalize().expect("it is there");
        error.replace(&*folder.to_string_lossy(), "")
    }
}

fn shuffled(failures: &[CaseFailure]) -> usize {
    failures
        .iter()
        .filter(|failure| failure.variant.order != Order::Given)
        .count()
}

#[test]
fn a_correct_operator_passes_all_runs() {
    let bench = Bench::windowed("sum").expect("out", SUMS).expect(
        "dead_letters",
        "{\"node\":\"rows\",\"kind\":\"decode\",\"payload\":\"{\\\"user\\\":\\\"c\\\"\"}\n\
         {\"node\":\"rows\",\"kind\":\"decode\"}\n",
    );
    let outcome = bench.run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!((outcome.runs, outcome.rows, outcome.compared), (21, 12, 1));
    assert_eq!(outcome.notes, Vec::<String>::new());
}

#[test]
fn wrong_rows_fail_in_every_run() {
    let wrong = SUMS.replace("\"n\":17", "\"n\":18");
    let outcome = Bench::windowed("sum").expect("out", &wrong).run();
    assert_eq!(outcome.failures.len(), 21);
    let CaseFailureKind::Rows { sink, difference } = &outcome.failures[0].kind else {
        panic!("{:?}", outcome.failures[0]);
    };
    assert_eq!(sink, "out");
    assert_eq!(
        difference.changed[0].fields,
        [("n".to_owned(), "18".to_owned(), "17".to_owned())]
    );
    assert_eq!(outcome.failures[0].dead_letters.len(), 2);
    assert_eq!(
        outcome.notes,
        ["2 rows became dead letters; to check them, add expected/dead_letters.jsonl"]
    );
}

#[test]
fn an_operator_that_depends_on_the_order_is_found_by_shuffling() {
    let last = SUMS
        .replace("\"n\":4}\n{\"user\":\"b\"", "\"n\":3}\n{\"user\":\"b\"")
        .replace("\"n\":7", "\"n\":5")
        .replace("\"n\":17", "\"n\":9");
    let bench = Bench::windowed("last").expect("out", &last);
    let failures = bench.run().failures;
    assert!(!failures.is_empty());
    assert_eq!(shuffled(&failures), failures.len(), "{failures:#?}");
    // Unless the order is meant to matter.
    bench.write("tests/case/test.toml", "disorder = false\n");
    let outcome = bench.run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!(outcome.runs, 12);
    assert!(
        outcome.notes[0].contains("disorder = false"),
        "{:?}",
        outcome.notes
    );
}

#[test]
fn rows_that_get_their_event_time_from_an_operator_are_shuffled_too() {
    let timed = |operator: &str| {
        let bench = Bench::windowed(operator);
        let path = bench.folder.path().join("pipeline.toml");
        let text = fs::read_to_string(path).expect("it was written");
        let time = "event_time = \"ts\"\n";
        let watermark = "watermark = { out_of_orderness = \"2s\" }\n";
        let text = text
            .replace(time, "")
            .replace(watermark, "")
            .replace("input = \"rows\"", "input = \"timed\"");
        let small = "[operators.timed]\nplugin = \"native.small\"\ninput = \"rows\"\n";
        bench.write("pipeline.toml", &[&text, small, time, watermark].concat());
        bench
    };
    // The filter drops the last row, of which nothing is known, not even its time.
    let sums = SUMS.replace(SUMS.lines().last().expect("a row"), "");
    let outcome = timed("sum").expect("out", &sums).run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!((outcome.runs, outcome.rows), (21, 12));
    let last = sums
        .replace("\"n\":4}\n{\"user\":\"b\"", "\"n\":3}\n{\"user\":\"b\"")
        .replace("\"n\":7", "\"n\":5")
        .replace("\"n\":17", "\"n\":9");
    let failures = timed("last").expect("out", &last).run().failures;
    assert!(!failures.is_empty());
    assert_eq!(shuffled(&failures), failures.len(), "{failures:#?}");
}

#[test]
fn an_operator_that_depends_on_the_cuts_is_found_by_batch_sizes() {
    let bench = Bench::new("plugin = \"native.together\"").expect("out", &"{\"n\":1}\n".repeat(10));
    let failures = bench.run().failures;
    assert!(!failures.is_empty());
    assert!(
        failures
            .iter()
            .all(|failure| failure.variant.batch_rows > 1),
        "{failures:#?}"
    );
}

#[test]
fn running_windows_are_compared_in_the_given_order_alone() {
    let bench = Bench::new("plugin = \"native.sum\"\nkey = \"user\"\nwindow = \"running\"");
    let steps = [
        ("a", 1),
        ("b", 2),
        ("a", 4),
        ("c", 4),
        ("b", 7),
        ("a", 10),
        ("a", 17),
        ("c", 12),
        ("c", 21),
        ("b", 17),
    ];
    let rows: String = steps
        .iter()
        .map(|(user, n)| format!("{{\"user\":\"{user}\",\"n\":{n}}}\n"))
        .collect();
    let outcome = bench.expect("out", &rows).run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!(outcome.runs, 12);
    assert_eq!(
        outcome.notes[0],
        "rows are not shuffled for out: running and count windows, processes and as-of joins \
         depend on their order"
    );
}

#[test]
fn joins_pass_all_runs() {
    let source = |name: &str| {
        format!(
            r#"
            [sources.{name}]
            type = "file"
            path = "nowhere.jsonl"
            format = "json"
            event_time = "ts"
            watermark = {{ out_of_orderness = "2s" }}
            fields = {{ user = "utf8", n = "int64", ts = "timestamp" }}
            "#
        )
    };
    let bench = Bench::new("").expect(
        "out",
        r#"{"user":"a","n":1,"m":null}
{"user":"a","n":3,"m":100}
{"user":"a","n":6,"m":null}
{"user":"a","n":7,"m":null}
{"user":"b","n":2,"m":null}
{"user":"b","n":5,"m":null}
{"user":"b","n":10,"m":null}
{"user":"b","n":null,"m":300}
{"user":"c","n":4,"m":200}
{"user":"c","n":8,"m":null}
{"user":"c","n":9,"m":null}
"#,
    );
    let join = r#"
        name = "bench"
        [operators.result]
        join = { kind = "full", before = "2s", after = "1s" }
        input = { left = "rows", right = "more" }
        key = "user"
        select = { user = "key.user", n = "left.n", m = "right.n" }
        [sinks.out]
        type = "blackhole"
        input = "result"
        "#;
    let text = [join.to_owned(), source("rows"), source("more")].concat();
    bench.write("pipeline.toml", &text);
    // Which rows are late depends on the other side: none is.
    bench.write(
        "tests/case/input/rows.jsonl",
        &ROWS.replace("9000", "10500"),
    );
    bench.write(
        "tests/case/input/more.jsonl",
        r#"{"user":"a","n":100,"ts":2500}
{"user":"c","n":200,"ts":1000}
{"user":"b","n":300,"ts":20000}
"#,
    );
    let outcome = bench.run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!((outcome.runs, outcome.rows), (21, 15));
}

#[test]
fn a_table_by_keys_is_told_as_changes() {
    let bench = Bench::new("").expect(
        "out",
        r#"{"n":1,"price":"1.50"}
{"n":2,"price":"2.25"}
{"n":3,"price":null}
"#,
    );
    bench.write(
        "pipeline.toml",
        r#"
        name = "bench"
        [sources.rows]
        type = "file"
        path = "nowhere.jsonl"
        event_time = "ts"
        fields = { item = "utf8", n = "int64", ts = "timestamp" }
        [sources.prices]
        type = "kafka"
        brokers = "127.0.0.1"
        topic = "prices"
        format = "csv"
        upsert = { key = "item" }
        fields = { item = "utf8", price = "decimal(9,2)?" }
        [operators.result]
        join = { kind = "left", as_of = "event_time" }
        input = { left = "rows", right = "prices" }
        key = "item"
        select = { n = "left.n", price = "right.price" }
        [sinks.out]
        type = "blackhole"
        input = "result"
        "#,
    );
    bench.write(
        "tests/case/input/rows.jsonl",
        r#"{"item":"a","n":1,"ts":1000}
{"item":"a","n":2,"ts":2000}
{"item":"a","n":3,"ts":3000}
"#,
    );
    bench.write(
        "tests/case/input/prices.jsonl",
        r#"{"op":"c","after":{"item":"a","price":1.5},"ts_ms":500}
{"op":"u","after":{"item":"a","price":"2.25"},"ts_ms":2000}
{"op":"d","before":{"item":"a"},"ts_ms":2001}
"#,
    );
    let outcome = bench.run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!(outcome.rows, 6);
}

#[test]
fn partitions_and_csv_stand_for_a_source() {
    let bench = Bench::windowed("sum").expect("out", SUMS);
    let pipeline = fs::read_to_string(bench.folder.path().join("pipeline.toml")).expect("readable");
    bench.write("pipeline.toml", &pipeline.replace("\"json\"", "\"csv\""));
    fs::remove_file(bench.folder.path().join("tests/case/input/rows.jsonl")).expect("it is there");
    bench.write(
        "tests/case/input/rows/first.csv",
        "n,user,ts\n1,a,1000\n2,b,2500\n3,a,1500\n6,a,12000",
    );
    bench.write(
        "tests/case/input/rows/second.csv",
        "ts,user,n\r\n3000,c,4\r\n4000,\"b\",5\r\n11000,c,8\r\n11001,c,9\r\n13000,b,10\r\n",
    );
    let outcome = bench.run();
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!((outcome.runs, outcome.rows), (21, 9));
}

#[test]
fn results_are_written_if_all_runs_agree() {
    let bench = Bench::windowed("sum");
    let (outcome, written) = update(&bench.case(), &Native, 1).expect("it runs");
    assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    assert_eq!(written.len(), 2);
    assert!(bench.run().failures.is_empty());
    let rows = fs::read_to_string(&written[0]).expect("it was written");
    assert!(
        rows.starts_with("{\"user\":\"a\",\"window_start\":\"1970-01-01T00:00:00Z\","),
        "{rows}"
    );

    let bench = Bench::windowed("last");
    let (outcome, written) = update(&bench.case(), &Native, 1).expect("it runs");
    assert!(!outcome.failures.is_empty());
    assert_eq!(written, Vec::<PathBuf>::new());
}

#[test]
fn unknown_files_are_refused() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    assert!(matches!(find(folder.path()), Err(TestError::NoTests(_))));

    let refused = |bench: Bench, expected: &str| {
        let error = bench.refused();
        assert!(error.contains(expected), "{error}");
    };
    refused(
        Bench::windowed("sum"),
        "nothing is expected: put the rows of a sink into",
    );
    refused(
        Bench::windowed("sum").expect("ot", SUMS),
        "/tests/case/expected/ot.jsonl: the pipeline has no sink `ot`: did you mean `out`?",
    );
    refused(
        Bench::windowed("sum").expect("out", "{\"user\":\"a\"}\n"),
        "/tests/case/expected/out.jsonl:1: `window_start`: a value of timestamp is missing",
    );
    refused(
        Bench::windowed("sum").expect("out", &format!("{SUMS}[]\n")),
        "/tests/case/expected/out.jsonl:7: expected one JSON object a line",
    );
    refused(
        Bench::windowed("sum")
            .expect("out", SUMS)
            .expect("dead_letters", "{\"nod\":\"rows\"}\n"),
        "/tests/case/expected/dead_letters.jsonl:1: a dead letter has no field `nod`: did you mean `node`?",
    );
    let bench = Bench::windowed("sum").expect("out", SUMS);
    bench.write("tests/case/input/row.jsonl", ROWS);
    refused(
        bench,
        "the pipeline has no source `row`: did you mean `rows`?",
    );
    let bench = Bench::windowed("sum").expect("out", SUMS);
    fs::remove_file(bench.folder.path().join("tests/case/input/rows.jsonl")).expect("it is there");
    refused(
        bench,
        "/tests/case/input/rows.jsonl: the rows for source `rows` are missing",
    );
    let bench = Bench::windowed("sum").expect("out", SUMS);
    bench.write("tests/case/test.toml", "disordr = true\n");
    let error = find(bench.folder.path())
        .expect_err("a setting is wrong")
        .to_string();
    assert!(error.contains("disorder"), "{error}");
}

/// However rows are shuffled and batches are cut, the results that are left are the
/// same, and so they can be expected.
#[test]
fn corrected_results_are_compared_as_they_are_in_the_end() {
    for timing in ["", "timing = \"timing\"\n"] {
        let window = format!(
            "plugin = \"native.sum\"\nkey = \"user\"\nwindow = {{ tumbling = \"1s\" }}\n\
             allowed_lateness = \"1h\"\n{timing}"
        );
        let bench = Bench::new(&window);
        let (outcome, _) = update(&bench.case(), &Native, 1).expect("it can be written");
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
        let path = bench.folder.path().join("tests/case/expected/out.jsonl");
        let expected = fs::read_to_string(path).expect("it was written");
        let mut windows: Vec<String> = Vec::new();
        for line in expected.lines() {
            assert!(!line.contains("timing"), "{line}");
            let row: Value = serde_json::from_str(line).expect("it is JSON");
            windows.push(format!("{} {}", row["user"], row["window_start"]));
        }
        let count = windows.len();
        windows.sort_unstable();
        windows.dedup();
        assert!(count > 3 && windows.len() == count, "{expected}");
        let outcome = bench.run();
        assert!(outcome.failures.is_empty(), "{:#?}", outcome.failures);
    }
}
