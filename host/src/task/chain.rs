//! Passes elements through a task's chain: each node's output goes to the next node
//! and to routers.

use std::sync::Arc;

use arrow_array::StringArray;

use super::courier::Courier;
use super::error::TaskError;
use crate::batch::Batch;
use crate::checkpoint::snapshot::NodeSnapshot;
use crate::clock::Clock;
use crate::dead_letter::DeadLetter;
use crate::element::{Element, Inlet, NodeId};
use crate::operator::{Counts, Operator, OperatorError, Outbox};
use crate::plan::{ADDED, MAIN_OUTPUT, TAKEN_BACK};
use crate::progress::NodeProgress;
use crate::router::Router;
use crate::schema::Schema;
use crate::sink::{RefusedRows, Sink};

/// A node in a chain.
pub struct Link {
    pub node: NodeId,
    pub work: Work,
    pub progress: Arc<NodeProgress>,
    /// Which of the node's tasks this is.
    pub task: usize,
    /// One for each of the node's outputs. The main output goes to the next link, too.
    pub outputs: Vec<Arc<Router>>,
    /// The columns of a sink that tells changes.
    pub changes: Option<Arc<Schema>>,
    /// When a sink is flushed at the latest, in ms of the clock, if it has new rows.
    pub flush_at_ms: Option<i64>,
    /// The watermark or idleness that is passed on when an operator has processed all that
    /// is due.
    pub held: Option<Held>,
}

/// How far time has come for those behind an operator, once it has processed all that is
/// due.
#[derive(Clone, Copy, Debug, Default)]
pub struct Held {
    watermark: Option<i64>,
    is_idle: bool,
}

/// How long rows lie in a sink's buffer at most, in ms, while time does not
/// advance.
const FLUSH_AFTER_MS: i64 = 200;

pub enum Work {
    Operator(Box<dyn Operator>),
    Sink(Box<dyn Sink>),
}

impl Link {
    /// Whether an operator is to go on with what is due.
    pub(super) fn has_more(&self) -> bool {
        match &self.work {
            Work::Operator(operator) => operator.has_more(),
            Work::Sink(_) => false,
        }
    }

    pub(super) fn wake_at(&self) -> Option<i64> {
        match &self.work {
            Work::Operator(operator) => operator.wake_at(),
            Work::Sink(sink) => [self.flush_at_ms, sink.flush_at_ms()]
                .into_iter()
                .flatten()
                .min(),
        }
    }
}

/// One element's way through the chain.
pub(super) struct Flow<'a> {
    /// The links that are still ahead.
    pub chain: &'a mut [Link],
    pub clock: &'a dyn Clock,
    pub courier: &'a mut Courier,
    /// Snapshots of the nodes that a barrier has passed.
    pub snapshots: &'a mut Vec<(NodeId, NodeSnapshot)>,
}

impl Flow<'_> {
    /// Passes an element to the next link, and the link's output to the following
    /// ones.
    pub(super) fn enter(&mut self, inlet: Inlet, element: Element) -> Result<(), TaskError> {
        let Some((link, mut rest)) = self.split(0) else {
            return Ok(());
        };
        match &mut link.work {
            Work::Operator(operator) => {
                match &element {
                    Element::Batch(batch) => {
                        link.progress.add_in(batch.rows());
                        link.progress.ledger.came(inlet, batch.rows());
                        let batch = batch.clone();
                        if let Some(held) = &mut link.held {
                            held.is_idle = false;
                        }
                        return rest.run(&link.outputs, &link.progress, link.task, |out| {
                            operator.rows(inlet, batch, out)
                        });
                    }
                    Element::Watermark(watermark) => {
                        rest.run(&link.outputs, &link.progress, link.task, |out| {
                            operator.watermark(*watermark, out)
                        })?;
                        if operator.has_more() {
                            link.held = Some(Held {
                                watermark: Some(*watermark),
                                is_idle: false,
                            });
                            return Ok(());
                        }
                        link.held = None;
                        link.progress.set_watermark(link.task, *watermark);
                    }
                    Element::Barrier(_) => {
                        if let Some(snapshot) = operator.snapshot()? {
                            let snapshot = NodeSnapshot::Operator(snapshot);
                            rest.snapshots.push((link.node, snapshot));
                        }
                    }
                    Element::Idle if operator.has_more() => {
                        link.held.get_or_insert_default().is_idle = true;
                        return Ok(());
                    }
                    Element::Idle | Element::End => {}
                }
                let passed_on = match element {
                    Element::Watermark(watermark) => {
                        Element::Watermark(operator.watermark_out(watermark))
                    }
                    element => element,
                };
                rest.pass_on(&link.outputs, &passed_on)
            }
            Work::Sink(sink) => {
                match element {
                    Element::Batch(batch) => {
                        let rows = batch.rows();
                        link.progress.add_in(rows);
                        link.progress.ledger.came(inlet, rows);
                        sink.write(&match &link.changes {
                            None => batch,
                            Some(schema) => with_change_column(batch, schema),
                        })?;
                        link.progress.ledger.wrote(rows);
                        let clock = rest.clock;
                        link.flush_at_ms
                            .get_or_insert_with(|| clock.now_ms().saturating_add(FLUSH_AFTER_MS));
                    }
                    Element::Watermark(watermark) => {
                        link.progress.set_watermark(link.task, watermark);
                        link.flush_at_ms = None;
                        sink.flush()?;
                    }
                    Element::Idle => {
                        link.flush_at_ms = None;
                        sink.flush()?;
                    }
                    Element::End => {
                        link.flush_at_ms = None;
                        sink.drain()?;
                    }
                    Element::Barrier(barrier) => {
                        if barrier.purpose.is_last() {
                            sink.complete()?;
                        }
                        let snapshot = NodeSnapshot::Sink(sink.barrier(barrier.id)?);
                        rest.snapshots.push((link.node, snapshot));
                    }
                }
                rest.refuse(&link.progress, sink.take_refused());
                Ok(())
            }
        }
    }

    /// Has operators process the next part of what is due.
    pub(super) fn go_on(&mut self) -> Result<(), TaskError> {
        for index in 0..self.chain.len() {
            let Some((link, mut rest)) = self.split(index) else {
                continue;
            };
            let Work::Operator(operator) = &mut link.work else {
                continue;
            };
            if !operator.has_more() {
                continue;
            }
            rest.run(&link.outputs, &link.progress, link.task, |out| {
                operator.go_on(out)
            })?;
            if operator.has_more() {
                continue;
            }
            let held = link.held.take().unwrap_or_default();
            if let Some(watermark) = held.watermark {
                link.progress.set_watermark(link.task, watermark);
                let passed_on = operator.watermark_out(watermark);
                rest.pass_on(&link.outputs, &Element::Watermark(passed_on))?;
            }
            if held.is_idle {
                rest.pass_on(&link.outputs, &Element::Idle)?;
            }
        }
        Ok(())
    }

    pub(super) fn wake(&mut self) -> Result<(), TaskError> {
        let now_ms = self.clock.now_ms();
        for index in 0..self.chain.len() {
            let Some((link, mut rest)) = self.split(index) else {
                continue;
            };
            if link.wake_at().is_none_or(|due| due > now_ms) {
                continue;
            }
            match &mut link.work {
                Work::Operator(operator) => {
                    rest.run(&link.outputs, &link.progress, link.task, |out| {
                        operator.wake(now_ms, out)
                    })?;
                }
                Work::Sink(sink) => {
                    link.flush_at_ms = None;
                    sink.flush()?;
                    rest.refuse(&link.progress, sink.take_refused());
                }
            }
        }
        Ok(())
    }

    /// Counts rows that a sink goes on without, and has them become dead letters.
    fn refuse(&mut self, progress: &NodeProgress, refused: RefusedRows) {
        if refused.rows == 0 {
            return;
        }
        progress.ledger.refused(refused.rows);
        progress.add_counts(Counts {
            failed: refused.rows,
            lost: refused.rows,
            ..Counts::default()
        });
        progress.add_dead_letters(&refused.dead_letters);
        self.courier.dead_letters.extend(refused.dead_letters);
    }

    /// A link, and the flow through those behind it.
    fn split(&mut self, index: usize) -> Option<(&mut Link, Flow<'_>)> {
        let (link, chain) = self.chain.get_mut(index..)?.split_first_mut()?;
        let rest = Flow {
            chain,
            clock: self.clock,
            courier: self.courier,
            snapshots: self.snapshots,
        };
        Some((link, rest))
    }

    /// Has an operator work, and passes its output to the next link and to its
    /// routers: at the end, and before that whenever there is much of it.
    fn run(
        &mut self,
        outputs: &[Arc<Router>],
        progress: &NodeProgress,
        task: usize,
        work: impl FnOnce(&mut Outbox<'_>) -> Result<(), OperatorError>,
    ) -> Result<(), TaskError> {
        let mut failure = None;
        let mut empty = |elements, dead_letters| {
            if failure.is_none() {
                let left = self.leave(outputs, progress, task, elements, dead_letters);
                let sent = left.and_then(|()| Ok(self.courier.send_now()?));
                failure = sent.err();
            }
        };
        let mut out = Outbox::emptied_by(&mut empty);
        let worked = progress.time(task, || work(&mut out));
        let Outbox {
            elements,
            dead_letters,
            counts,
            ..
        } = out;
        progress.add_counts(counts);
        if let Some(failure) = failure {
            return Err(failure);
        }
        worked?;
        self.leave(outputs, progress, task, elements, dead_letters)
    }

    fn leave(
        &mut self,
        outputs: &[Arc<Router>],
        progress: &NodeProgress,
        task: usize,
        elements: Vec<(usize, Element)>,
        dead_letters: Vec<DeadLetter>,
    ) -> Result<(), TaskError> {
        progress.add_dead_letters(&dead_letters);
        self.courier.dead_letters.extend(dead_letters);
        for (port, element) in elements {
            match &element {
                Element::Watermark(watermark) => progress.set_watermark(task, *watermark),
                Element::Batch(batch) => progress.ledger.left(port, batch.rows()),
                _ => {}
            }
            self.put_out(outputs, port, element)?;
        }
        Ok(())
    }

    /// Passes an element on by all outputs.
    fn pass_on(&mut self, outputs: &[Arc<Router>], element: &Element) -> Result<(), TaskError> {
        for port in 0..outputs.len() {
            self.put_out(outputs, port, element.clone())?;
        }
        Ok(())
    }

    fn put_out(
        &mut self,
        outputs: &[Arc<Router>],
        port: usize,
        element: Element,
    ) -> Result<(), TaskError> {
        self.courier.take(&outputs[port], &element);
        match port {
            // The next link has no edge but this one.
            MAIN_OUTPUT => self.enter(Inlet::default(), element),
            _ => Ok(()),
        }
    }
}

/// The rows with a last column that says which of them are taken back.
fn with_change_column(mut batch: Batch, schema: &Arc<Schema>) -> Batch {
    let changes = (0..batch.rows()).map(|row| match batch.is_taken_back(row) {
        true => TAKEN_BACK,
        false => ADDED,
    });
    let changes = StringArray::from_iter_values(changes);
    batch.taken_back = None;
    batch.columns.push(Arc::new(changes));
    batch.schema = schema.clone();
    batch
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow_array::StringArray;
    use proptest::prelude::*;
    use tokio::sync::mpsc;

    use super::*;
    use crate::batch::Batch;
    use crate::checkpoint::snapshot::{OperatorSnapshot, SinkSnapshot};
    use crate::clock::ManualClock;
    use crate::element::{Barrier, CheckpointId};
    use crate::progress::Role;
    use crate::router::Consumer;
    use crate::sink::{Ending, SinkError};

    /// An operator that does this with rows, and nothing else.
    struct OfRows(fn(Inlet, Batch, &mut Outbox));

    impl Operator for OfRows {
        fn rows(
            &mut self,
            inlet: Inlet,
            batch: Batch,
            out: &mut Outbox,
        ) -> Result<(), OperatorError> {
            (self.0)(inlet, batch, out);
            Ok(())
        }

        fn watermark(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            Ok(())
        }

        fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
            Ok(None)
        }

        fn wake_at(&self) -> Option<i64> {
            None
        }

        fn wake(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            Ok(())
        }
    }

    /// Has two inputs and two outputs, and emits the rows of each input by the other
    /// output.
    const CROSSING: OfRows = OfRows(|inlet, batch, out| out.put(1 - inlet.port, batch));

    /// Emits a megabyte for each row.
    const BLOWING: OfRows = OfRows(|_, batch, out| {
        for row in 0..batch.rows() {
            let mut large = batch.slice(row, 1);
            let text = "x".repeat(1 << 20);
            large.columns = vec![Arc::new(StringArray::from(vec![text]))];
            out.put(MAIN_OUTPUT, large);
        }
    });

    fn batch(rows: i64) -> Element {
        Element::Batch(Batch {
            schema: Arc::default(),
            columns: Vec::new(),
            times: (0..rows).collect(),
            origin: None,
            watermarks: None,
            taken_back: None,
        })
    }

    /// A link of one operator, and what its outputs get.
    fn link(operator: OfRows) -> (Link, Vec<mpsc::Receiver<Element>>) {
        let mut readers = Vec::new();
        let mut router = || {
            let (sender, reader) = mpsc::channel(8);
            readers.push(reader);
            let consumers = vec![Consumer::One(sender)];
            Arc::new(Router {
                consumers,
                ..Router::default()
            })
        };
        let link = Link {
            node: 0,
            work: Work::Operator(Box::new(operator)),
            progress: Arc::new(NodeProgress::new("crossing", Role::Operator, 1)),
            task: 0,
            outputs: vec![router(), router()],
            changes: None,
            flush_at_ms: None,
            held: None,
        };
        (link, readers)
    }

    /// An operator that has this many pieces left of what is due.
    struct Piecemeal(usize);

    impl Operator for Piecemeal {
        fn rows(&mut self, _: Inlet, batch: Batch, out: &mut Outbox) -> Result<(), OperatorError> {
            out.put(MAIN_OUTPUT, batch);
            Ok(())
        }

        fn watermark(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            self.0 = 2;
            Ok(())
        }

        fn has_more(&self) -> bool {
            self.0 > 0
        }

        fn go_on(&mut self, _: &mut Outbox) -> Result<(), OperatorError> {
            self.0 -= 1;
            Ok(())
        }

        fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
            Ok(None)
        }

        fn wake_at(&self) -> Option<i64> {
            None
        }

        fn wake(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            Ok(())
        }
    }

    #[test]
    fn time_is_passed_on_when_all_is_done_that_is_due() {
        let (mut link, _) = link(CROSSING);
        link.work = Work::Operator(Box::new(Piecemeal(0)));
        let (sender, mut reader) = mpsc::channel(16);
        link.outputs = vec![Arc::new(Router {
            consumers: vec![Consumer::One(sender)],
            ..Router::default()
        })];
        let (writer, _letters) = mpsc::channel(1);
        let mut courier = Courier::new(writer, 0);
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        let mut passed_on = |courier: &mut Courier| {
            runtime.block_on(courier.send()).unwrap();
            let mut passed_on = Vec::new();
            while let Ok(element) = reader.try_recv() {
                passed_on.push(match element {
                    Element::Batch(batch) => format!("{} rows", batch.rows()),
                    other => format!("{other:?}"),
                });
            }
            passed_on
        };
        let go_on = |link: &mut Link, courier: &mut Courier| {
            let mut flow = Flow {
                chain: std::slice::from_mut(link),
                clock: &ManualClock::default(),
                courier,
                snapshots: &mut Vec::new(),
            };
            flow.go_on().unwrap();
        };
        let barrier = || Element::Barrier(Barrier::default());
        for element in [Element::Watermark(5), batch(3), barrier(), Element::Idle] {
            enter(&mut link, &mut courier, Inlet::default(), element);
        }
        let of_barrier = format!("{:?}", barrier());
        assert_eq!(passed_on(&mut courier), ["3 rows", &of_barrier]);
        go_on(&mut link, &mut courier);
        assert_eq!(passed_on(&mut courier), [""; 0]);
        // A later one takes its place, and rows end idleness.
        for element in [Element::Watermark(7), Element::Idle, batch(1)] {
            enter(&mut link, &mut courier, Inlet::default(), element);
        }
        go_on(&mut link, &mut courier);
        assert_eq!(passed_on(&mut courier), ["1 rows"]);
        go_on(&mut link, &mut courier);
        assert_eq!(passed_on(&mut courier), ["Watermark(7)"]);
        assert!(!link.has_more());
        enter(
            &mut link,
            &mut courier,
            Inlet::default(),
            Element::Watermark(9),
        );
        enter(&mut link, &mut courier, Inlet::default(), Element::Idle);
        go_on(&mut link, &mut courier);
        go_on(&mut link, &mut courier);
        assert_eq!(passed_on(&mut courier), ["Watermark(9)", "Idle"]);
    }

    /// A sink that asks to be flushed at 1 s.
    struct Asking(Arc<AtomicUsize>);

    impl Sink for Asking {
        fn write(&mut self, _: &Batch) -> Result<(), SinkError> {
            Ok(())
        }

        fn flush(&mut self) -> Result<(), SinkError> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }

        fn flush_at_ms(&self) -> Option<i64> {
            Some(1_000).filter(|_| self.0.load(Ordering::Relaxed) < 2)
        }

        fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
            Ok(SinkSnapshot::default())
        }

        fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_is_flushed_when_it_asks_to_be_although_no_row_comes() {
        let flushed = Arc::new(AtomicUsize::new(0));
        let (mut link, _readers) = link(CROSSING);
        link.work = Work::Sink(Box::new(Asking(flushed.clone())));
        let (writer, _letters) = mpsc::channel(1);
        let mut courier = Courier::new(writer, 0);
        enter(&mut link, &mut courier, Inlet::default(), batch(1));
        let clock = ManualClock::default();
        let mut flushes_at = |link: &mut Link, now_ms| {
            clock.set(now_ms);
            let mut flow = Flow {
                chain: std::slice::from_mut(link),
                clock: &clock,
                courier: &mut courier,
                snapshots: &mut Vec::new(),
            };
            flow.wake().unwrap();
            flushed.load(Ordering::Relaxed)
        };
        assert_eq!(link.wake_at(), Some(FLUSH_AFTER_MS), "rows wait");
        assert_eq!(flushes_at(&mut link, FLUSH_AFTER_MS), 1);
        assert_eq!(link.wake_at(), Some(1_000));
        assert_eq!(flushes_at(&mut link, 999), 1);
        assert_eq!(flushes_at(&mut link, 1_000), 2);
        assert_eq!(link.wake_at(), None);
    }

    fn enter(link: &mut Link, courier: &mut Courier, inlet: Inlet, element: Element) {
        let mut flow = Flow {
            chain: std::slice::from_mut(link),
            clock: &ManualClock::default(),
            courier,
            snapshots: &mut Vec::new(),
        };
        flow.enter(inlet, element).unwrap();
    }

    fn received(reader: &mut mpsc::Receiver<Element>) -> Vec<String> {
        let received = std::iter::from_fn(|| reader.try_recv().ok());
        received
            .map(|element| match element {
                Element::Batch(batch) => format!("{} rows", batch.rows()),
                Element::Watermark(time) => format!("time {time}"),
                element => panic!("{element:?} is from nowhere"),
            })
            .collect()
    }

    #[tokio::test]
    async fn rows_leave_by_the_output_that_the_operator_names_and_time_by_all() {
        let (mut crossing, mut readers) = link(CROSSING);
        let (writer, _letters) = mpsc::channel(1);
        let mut courier = Courier::new(writer, 0);
        let inlet = |port| Inlet { port, edge: 0 };
        for (inlet, element) in [
            (inlet(0), batch(1)),
            (inlet(1), batch(2)),
            (inlet(0), Element::Watermark(7)),
        ] {
            enter(&mut crossing, &mut courier, inlet, element);
        }
        courier.send().await.unwrap();
        assert_eq!(received(&mut readers[0]), ["2 rows", "time 7"]);
        assert_eq!(received(&mut readers[1]), ["1 rows", "time 7"]);
        assert_eq!(crossing.progress.snapshot().rows_out, 3);
    }

    #[tokio::test]
    async fn time_that_an_operator_makes_leaves_between_its_rows() {
        let (mut timing, mut readers) = link(OfRows(|_, batch, out| {
            out.put(MAIN_OUTPUT, batch.slice(0, 2));
            out.put_time(MAIN_OUTPUT, Element::Watermark(7));
            out.put(MAIN_OUTPUT, batch.slice(2, 1));
        }));
        let (writer, _letters) = mpsc::channel(1);
        let mut courier = Courier::new(writer, 0);
        enter(&mut timing, &mut courier, Inlet::default(), batch(3));
        courier.send().await.unwrap();
        assert_eq!(received(&mut readers[0]), ["2 rows", "time 7", "1 rows"]);
        assert_eq!(timing.progress.snapshot().watermark_ms, Some(7));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn large_output_leaves_before_the_operator_is_done() {
        let (mut blowing, mut readers) = link(BLOWING);
        let (writer, _letters) = mpsc::channel(1);
        let mut courier = Courier::new(writer, 0);
        // The channel has room for 8: the operator waits for the reader.
        let mut reader = readers.swap_remove(0);
        let read = tokio::spawn(async move {
            let mut rows = 0;
            while let Some(Element::Batch(batch)) = reader.recv().await {
                rows += batch.rows();
            }
            rows
        });
        let working = tokio::spawn(async move {
            enter(&mut blowing, &mut courier, Inlet::default(), batch(100));
            let kept = courier.waiting();
            courier.send().await.unwrap();
            kept
        });
        let kept = working.await.unwrap();
        assert!(kept < 20, "{kept} batches of 100 were kept");
        assert_eq!(read.await.unwrap(), 100);
    }

    /// Emits its rows a second after the first of them came, as a window of processing
    /// time does.
    #[derive(Default)]
    struct Holding(Vec<Batch>, Option<i64>, Arc<ManualClock>);

    impl Operator for Holding {
        fn rows(&mut self, _: Inlet, batch: Batch, _: &mut Outbox) -> Result<(), OperatorError> {
            let clock = &self.2;
            self.1.get_or_insert_with(|| clock.now_ms() + 1_000);
            self.0.push(batch);
            Ok(())
        }

        fn watermark(&mut self, _: i64, _: &mut Outbox) -> Result<(), OperatorError> {
            Ok(())
        }

        fn snapshot(&mut self) -> Result<Option<OperatorSnapshot>, OperatorError> {
            Ok(None)
        }

        fn wake_at(&self) -> Option<i64> {
            self.1
        }

        fn wake(&mut self, _: i64, out: &mut Outbox) -> Result<(), OperatorError> {
            self.1 = None;
            for batch in self.0.drain(..) {
                out.put(MAIN_OUTPUT, batch);
            }
            Ok(())
        }
    }

    /// What a sink has done.
    #[derive(Debug, Default)]
    struct Seen {
        /// When rows came that are not visible yet.
        hidden: Vec<i64>,
        visible: usize,
        /// How long rows were hidden at most.
        hidden_ms_max: i64,
    }

    struct Timed(Arc<Mutex<Seen>>, Arc<ManualClock>);

    impl Sink for Timed {
        fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
            let mut seen = self.0.lock().unwrap();
            let now_ms = self.1.now_ms();
            seen.hidden.extend((0..batch.rows()).map(|_| now_ms));
            Ok(())
        }

        fn flush(&mut self) -> Result<(), SinkError> {
            let seen = &mut *self.0.lock().unwrap();
            for came_ms in seen.hidden.drain(..) {
                seen.visible += 1;
                seen.hidden_ms_max = seen.hidden_ms_max.max(self.1.now_ms() - came_ms);
            }
            Ok(())
        }

        fn barrier(&mut self, _: CheckpointId) -> Result<SinkSnapshot, SinkError> {
            Ok(SinkSnapshot::default())
        }

        fn finish(&mut self, _: Ending) -> Result<(), SinkError> {
            Ok(())
        }
    }

    fn elements() -> impl Strategy<Value = Element> {
        prop_oneof![
            4 => (1..4i64).prop_map(batch),
            1 => (0..100i64).prop_map(Element::Watermark),
            1 => Just(Element::Idle),
        ]
    }

    proptest! {
        /// However quiet it is, a row that came to the sink is visible soon.
        #[test]
        fn no_row_is_hidden_for_long(
            schedule in prop::collection::vec((0..3_000i64, elements()), 0..20),
            holds in any::<bool>(),
        ) {
            let clock = Arc::new(ManualClock::default());
            let seen = Arc::new(Mutex::new(Seen::default()));
            let mut links = Vec::new();
            if holds {
                let (mut holding, _readers) = link(CROSSING);
                holding.outputs = vec![Arc::new(Router::default())];
                let held = Holding(Vec::new(), None, clock.clone());
                holding.work = Work::Operator(Box::new(held));
                links.push(holding);
            }
            let (mut sink, _readers) = link(CROSSING);
            sink.outputs = Vec::new();
            sink.work = Work::Sink(Box::new(Timed(seen.clone(), clock.clone())));
            links.push(sink);
            let (writer, _letters) = mpsc::channel(1);
            let mut courier = Courier::new(writer, 0);
            let mut snapshots = Vec::new();
            let mut came = 0;
            let quiet = (10_000, Element::Barrier(Default::default()));
            for (gap_ms, element) in schedule.into_iter().chain([quiet]) {
                let at_ms = clock.now_ms() + gap_ms;
                let due = |links: &[Link]| links.iter().filter_map(Link::wake_at).min();
                let flow = |links: &mut [Link], courier: &mut Courier, snapshots: &mut Vec<_>, element| {
                    let mut flow = Flow {
                        chain: links,
                        clock: &*clock,
                        courier,
                        snapshots,
                    };
                    match element {
                        Some(element) => flow.enter(Inlet::default(), element),
                        None => flow.wake(),
                    }
                };
                while let Some(due_ms) = due(&links).filter(|&due_ms| due_ms <= at_ms) {
                    clock.set(due_ms.max(clock.now_ms()));
                    flow(&mut links, &mut courier, &mut snapshots, None).unwrap();
                }
                clock.set(at_ms);
                if let Element::Batch(batch) = &element {
                    came += batch.rows();
                }
                flow(&mut links, &mut courier, &mut snapshots, Some(element)).unwrap();
            }
            let seen = seen.lock().unwrap();
            prop_assert!(seen.hidden_ms_max <= FLUSH_AFTER_MS, "{:?}", seen);
            prop_assert_eq!(seen.visible, came, "{:?}", seen);
        }
    }
}
