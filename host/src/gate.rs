//! Merges the inputs of a task: aligns barriers, and decides the task's watermark.

use std::task::Poll;

use arrow_buffer::ScalarBuffer;
use tokio::sync::mpsc::Receiver;

use crate::batch::Batch;
use crate::element::{Barrier, END_OF_TIME, Element, Inlet};

/// The inputs of a task, one for each upstream task of each edge.
pub struct Gate {
    inputs: Vec<Input>,
    clock: WatermarkMerge,
    /// Which input is polled first; it changes, so that no input starves.
    next: usize,
    /// The barrier that the held inputs have received.
    barrier: Barrier,
}

struct Input {
    /// Port and edge by which its batches come into the node.
    inlet: Inlet,
    /// Absent once the input has ended.
    receiver: Option<Receiver<Element>>,
    /// Its barrier has come, and that of another input has not: elements after
    /// the barrier belong to the next checkpoint and have to wait.
    is_held: bool,
}

/// What comes out of a gate.
#[derive(Debug)]
pub enum Merged {
    /// A batch, and the port and edge by which it came.
    Batch(Inlet, Batch),
    Watermark(i64),
    /// All inputs have come to the end of time. Before, time comes to the newest of their
    /// watermarks, if it is not there yet: whichever of them has ended first.
    EndOfTime(Option<i64>),
    Idle,
    /// The barrier has come on every input that has not ended.
    Barrier(Barrier),
    /// All inputs have ended.
    End,
}

impl Gate {
    /// Inputs, each with its port and edge.
    pub fn new(inputs: Vec<(Inlet, Receiver<Element>)>) -> Self {
        Gate {
            clock: WatermarkMerge::new(inputs.len()),
            inputs: inputs
                .into_iter()
                .map(|(inlet, receiver)| Input {
                    inlet,
                    receiver: Some(receiver),
                    is_held: false,
                })
                .collect(),
            next: 0,
            barrier: Barrier::default(),
        }
    }

    /// The next element for the task. The future may be dropped and called again.
    pub async fn next(&mut self) -> Merged {
        loop {
            if self.is_aligned() {
                for input in &mut self.inputs {
                    input.is_held = false;
                }
                return Merged::Barrier(self.barrier);
            }
            let Some((index, element)) = self.receive().await else {
                return Merged::End;
            };
            let advance = match element {
                Element::Batch(mut batch) => {
                    self.clock.active(index);
                    if let Some(watermarks) = &mut batch.watermarks {
                        *watermarks = self.clock.before_each(index, watermarks);
                    }
                    return Merged::Batch(self.inputs[index].inlet, batch);
                }
                Element::Watermark(watermark) => self.clock.advance(index, watermark),
                Element::Idle => self.clock.idle(index),
                Element::Barrier(barrier) => {
                    self.inputs[index].is_held = true;
                    self.barrier = barrier;
                    None
                }
                // One that has read all of its rows has said so by the end of time. One that
                // was stopped holds time where it is: more of its rows come in the next run.
                Element::End => {
                    self.inputs[index].receiver = None;
                    None
                }
            };
            match advance {
                Some(Advance::To(watermark)) => return Merged::Watermark(watermark),
                Some(Advance::ToEnd(newest)) => return Merged::EndOfTime(newest),
                Some(Advance::Idle) => return Merged::Idle,
                None => {}
            }
        }
    }

    /// Whether the barrier has come on all inputs that have not ended.
    fn is_aligned(&self) -> bool {
        let mut open = self.inputs.iter().filter(|input| input.receiver.is_some());
        self.inputs.iter().any(|input| input.is_held) && open.all(|input| input.is_held)
    }

    /// The next element of any input that has one; `None` when all have ended.
    async fn receive(&mut self) -> Option<(usize, Element)> {
        std::future::poll_fn(|context| {
            let count = self.inputs.len();
            let mut open = false;
            for step in 0..count {
                let index = (self.next + step) % count;
                let Input {
                    receiver: Some(receiver),
                    is_held: false,
                    ..
                } = &mut self.inputs[index]
                else {
                    continue;
                };
                open = true;
                match receiver.poll_recv(context) {
                    Poll::Ready(Some(element)) => {
                        self.next = index + 1;
                        return Poll::Ready(Some((index, element)));
                    }
                    // An upstream task that is gone without `End` has failed: the
                    // run is ending, and this task will be dropped.
                    Poll::Ready(None) => return Poll::Pending,
                    Poll::Pending => {}
                }
            }
            if open {
                Poll::Pending
            } else {
                Poll::Ready(None)
            }
        })
        .await
    }
}

/// The minimum watermark of several inputs, without idle ones.
#[derive(Debug)]
pub struct WatermarkMerge {
    inputs: Vec<(i64, bool)>,
    /// The newest watermark of any input, but for the end of time.
    newest: i64,
    /// Never goes back.
    merged: i64,
    idle: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Advance {
    To(i64),
    /// To the end of time, by way of the newest watermark of any input.
    ToEnd(Option<i64>),
    /// Every input is idle.
    Idle,
}

impl WatermarkMerge {
    pub fn new(inputs: usize) -> Self {
        WatermarkMerge {
            inputs: vec![(i64::MIN, false); inputs],
            newest: i64::MIN,
            merged: i64::MIN,
            idle: false,
        }
    }

    pub fn active(&mut self, input: usize) {
        self.inputs[input].1 = false;
        self.idle = false;
    }

    pub fn advance(&mut self, input: usize, watermark: i64) -> Option<Advance> {
        if watermark < END_OF_TIME {
            self.newest = self.newest.max(watermark);
        }
        let known = &mut self.inputs[input].0;
        *known = watermark.max(*known);
        self.active(input);
        self.merge()
    }

    pub fn idle(&mut self, input: usize) -> Option<Advance> {
        self.inputs[input].1 = true;
        self.merge()
    }

    /// The merged watermark before each row of an input, given the input's own.
    fn before_each(&self, input: usize, own: &ScalarBuffer<i64>) -> ScalarBuffer<i64> {
        if self.inputs.len() == 1 {
            return own.clone();
        }
        let others = self.inputs.iter().enumerate();
        let others = others.filter(|(index, (_, idle))| *index != input && !idle);
        let lowest_ms = others.map(|(_, (watermark_ms, _))| *watermark_ms).min();
        let merged = |&own_ms: &i64| own_ms.min(lowest_ms.unwrap_or(i64::MAX)).max(self.merged);
        own.iter().map(merged).collect()
    }

    fn merge(&mut self) -> Option<Advance> {
        let active = self.inputs.iter().filter(|(_, idle)| !idle);
        match active.map(|(watermark, _)| *watermark).min() {
            Some(minimum) if minimum > self.merged => {
                let before = std::mem::replace(&mut self.merged, minimum);
                Some(match minimum {
                    END_OF_TIME => Advance::ToEnd(Some(self.newest).filter(|it| *it > before)),
                    _ => Advance::To(minimum),
                })
            }
            None if !self.idle => {
                self.idle = true;
                Some(Advance::Idle)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEFT: Inlet = Inlet { port: 0, edge: 0 };
    const RIGHT: Inlet = Inlet { port: 1, edge: 0 };

    fn barrier(id: u64) -> Element {
        Element::Barrier(Barrier {
            id,
            ..Barrier::default()
        })
    }

    #[test]
    fn time_is_the_minimum_of_the_inputs() {
        let mut merge = WatermarkMerge::new(2);
        assert_eq!(merge.advance(0, 10), None);
        assert_eq!(merge.advance(1, 5), Some(Advance::To(5)));
        assert_eq!(merge.advance(1, 7), Some(Advance::To(7)));
        assert_eq!(merge.advance(1, 20), Some(Advance::To(10)));
        assert_eq!(merge.advance(0, 9), None, "time never goes back");
    }

    #[test]
    fn silent_inputs_do_not_hold_time_back() {
        let mut merge = WatermarkMerge::new(2);
        assert_eq!(merge.advance(0, 10), None);
        assert_eq!(merge.idle(1), Some(Advance::To(10)));
        assert_eq!(merge.idle(0), Some(Advance::Idle));
        assert_eq!(merge.idle(0), None, "said once");
        assert_eq!(
            merge.advance(1, 4),
            None,
            "input 0 is silent, but time stays"
        );
        assert_eq!(merge.advance(1, 12), Some(Advance::To(12)));
    }

    #[test]
    fn an_ended_input_is_at_the_end_of_time() {
        let mut merge = WatermarkMerge::new(2);
        assert_eq!(merge.advance(0, END_OF_TIME), None);
        assert_eq!(merge.advance(1, 3), Some(Advance::To(3)));
        assert_eq!(merge.advance(1, END_OF_TIME), Some(Advance::ToEnd(None)));
    }

    #[tokio::test]
    async fn elements_after_a_barrier_wait_for_the_other_inputs() {
        let (left, left_receiver) = tokio::sync::mpsc::channel(8);
        let (right, right_receiver) = tokio::sync::mpsc::channel(8);
        let mut gate = Gate::new(vec![(LEFT, left_receiver), (RIGHT, right_receiver)]);
        let end = || [Element::Watermark(END_OF_TIME), Element::End];
        let of_left = [barrier(1), Element::Watermark(50), barrier(2)];
        for element in of_left.into_iter().chain(end()) {
            left.send(element).await.unwrap();
        }
        for element in [Element::Watermark(3), barrier(1)].into_iter().chain(end()) {
            right.send(element).await.unwrap();
        }
        let mut seen = Vec::new();
        loop {
            match gate.next().await {
                Merged::End => break,
                Merged::Barrier(barrier) => seen.push(format!("Barrier({})", barrier.id)),
                other => seen.push(format!("{other:?}")),
            }
        }
        assert_eq!(
            seen,
            [
                "Barrier(1)",
                "Watermark(3)",
                "Watermark(50)",
                "Barrier(2)",
                "EndOfTime(None)"
            ]
        );
    }

    #[tokio::test]
    async fn inputs_are_merged_until_all_have_ended() {
        let (left, left_receiver) = tokio::sync::mpsc::channel(8);
        let (right, right_receiver) = tokio::sync::mpsc::channel(8);
        let gate = Gate::new(vec![(LEFT, left_receiver), (RIGHT, right_receiver)]);
        let end = Element::Watermark(END_OF_TIME);
        for element in [Element::Watermark(5), end.clone(), Element::End] {
            left.send(element).await.unwrap();
        }
        for element in [Element::Watermark(3), end, Element::End] {
            right.send(element).await.unwrap();
        }
        assert_eq!(watermarks(gate).await, [3, 5, END_OF_TIME]);
    }

    #[tokio::test]
    async fn an_input_that_is_stopped_holds_time_where_it_is() {
        let (left, left_receiver) = tokio::sync::mpsc::channel(8);
        let (right, right_receiver) = tokio::sync::mpsc::channel(8);
        let gate = Gate::new(vec![(LEFT, left_receiver), (RIGHT, right_receiver)]);
        for element in [Element::Watermark(3), Element::End] {
            left.send(element).await.unwrap();
        }
        for element in [Element::Watermark(2), Element::Watermark(9), Element::End] {
            right.send(element).await.unwrap();
        }
        assert_eq!(watermarks(gate).await, [2, 3]);
    }

    /// The watermarks that come out until all inputs have ended.
    async fn watermarks(mut gate: Gate) -> Vec<i64> {
        let mut seen = Vec::new();
        loop {
            match gate.next().await {
                Merged::Watermark(watermark) => seen.push(watermark),
                Merged::EndOfTime(newest) => {
                    seen.extend(newest);
                    seen.push(END_OF_TIME);
                }
                Merged::End => return seen,
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn batches_say_by_which_port_they_have_come() {
        let (left, left_receiver) = tokio::sync::mpsc::channel(8);
        let (right, right_receiver) = tokio::sync::mpsc::channel(8);
        let mut gate = Gate::new(vec![(LEFT, left_receiver), (RIGHT, right_receiver)]);
        let batch = Batch {
            schema: Default::default(),
            columns: Vec::new(),
            times: vec![0].into(),
            origin: None,
            watermarks: None,
            taken_back: None,
        };
        for sender in [right, left] {
            for element in [Element::Batch(batch.clone()), Element::End] {
                sender.send(element).await.unwrap();
            }
        }
        let mut seen = Vec::new();
        loop {
            match gate.next().await {
                Merged::Batch(inlet, _) => seen.push(inlet),
                Merged::End => break,
                _ => {}
            }
        }
        assert_eq!(seen, [LEFT, RIGHT]);
    }
}
