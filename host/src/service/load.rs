//! How busy the nodes of a pipeline were lately: which one holds back others, and whether that
//! lasts.
//!
//! Rows wait in front of the node that is too slow, and so do the nodes before it: the cause is
//! the one that does not wait itself, behind one that does.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::plan::{Node, Plan};
use crate::progress::{NodeProgress, Role, TaskTimes};

/// What is said of now is true of so long.
const LATELY: Duration = Duration::from_secs(10);
/// What was so for so long lasts.
const LONG: Duration = Duration::from_secs(60);
/// A node one of whose tasks is blocked for more of its time than this is held back.
const BLOCKED_PART: f64 = 0.2;
/// More rows would wait for a task that works for more of its time than this.
const BUSY_PART: f64 = 0.9;
/// One that holds back others, and works for less of its time than this, waits for something.
const WORKS_PART: f64 = 0.5;

/// In which parts of their time the tasks of a node worked, waited for those behind them to
/// have room, and did neither, lately: 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Shares {
    /// 0 for sources and sinks.
    pub busy: f64,
    pub blocked: f64,
    /// They wait for rows; sources and sinks also while they read or write.
    pub idle: f64,
}

/// A node that is too slow for what comes to it.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Bottleneck {
    /// The cause; absent if it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The number of its task, from 1, where the others have much less to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<usize>,
    /// The nodes that wait; if there are none yet, more rows would wait.
    pub holds_back: Vec<String>,
    pub lasts: Lasting,
    /// All of this, for people.
    pub sentence: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Lasting {
    /// So it was in the last seconds, and not for a minute.
    Transient,
    /// So it was in the last minute, too.
    Chronic,
}

/// The load of a pipeline's nodes at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loads {
    /// By node; empty before it is known.
    pub nodes: Vec<Shares>,
    pub bottleneck: Option<Bottleneck>,
}

/// What the tasks of a pipeline have done in the last minute.
#[derive(Debug, Default)]
pub struct LoadHistory(Mutex<History>);

#[derive(Debug, Default)]
struct History {
    /// Those that the looks are about.
    nodes: Vec<Arc<NodeProgress>>,
    looks: VecDeque<(Instant, Vec<Vec<TaskTimes>>)>,
}

impl LoadHistory {
    /// Notes what these nodes have done until now. Others begin anew.
    pub fn look(&self, nodes: Vec<Arc<NodeProgress>>, now: Instant) {
        let mut history = self.lock();
        let is_same = |(then, now): (&Arc<_>, &Arc<_>)| Arc::ptr_eq(then, now);
        let are_same =
            history.nodes.len() == nodes.len() && history.nodes.iter().zip(&nodes).all(is_same);
        if !are_same {
            history.looks.clear();
            history.nodes = nodes;
        }
        if history.nodes.is_empty() {
            return;
        }
        let times = history.nodes.iter().map(|node| node.task_times()).collect();
        history.looks.push_back((now, times));
        // One that is as old as that is the first of a minute.
        while history
            .looks
            .get(1)
            .is_some_and(|(at, _)| now.duration_since(*at) >= LONG)
        {
            history.looks.pop_front();
        }
    }

    /// What the nodes of this plan do, if it is what was looked at last.
    pub fn now(&self, plan: &Plan) -> Loads {
        let history = self.lock();
        if history.nodes.len() != plan.nodes.len() {
            return Loads::default();
        }
        let (Some(lately), long) = (history.over(LATELY), history.over(LONG)) else {
            return Loads::default();
        };
        let roles = history.nodes.iter().map(|node| node.role);
        let node = |(node, role): (&Node, Role)| Measured {
            name: node.name.clone(),
            role,
            inputs: node.edges().map(|edge| edge.from).collect(),
        };
        let nodes: Vec<Measured> = plan.nodes.iter().zip(roles).map(node).collect();
        Loads {
            bottleneck: bottleneck(&nodes, &lately, long.as_deref()),
            nodes: lately.iter().map(|tasks| mean(tasks)).collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    /// By node, what its tasks did in the last part of the time: the whole minute, or what is
    /// known of a shorter time.
    fn over(&self, time: Duration) -> Option<Vec<Vec<Shares>>> {
        let (end, now) = self.looks.back()?;
        let is_within = |(at, _): &&(Instant, _)| end.duration_since(*at) < time;
        let (begin, then) = match self.looks.iter().rev().find(|look| !is_within(look)) {
            Some(look) => look,
            None if time == LATELY => self.looks.front()?,
            None => return None,
        };
        let passed_ms = end.duration_since(*begin).as_secs_f64() * 1e3;
        if passed_ms == 0.0 {
            return None;
        }
        let tasks = |(then, now): (&Vec<TaskTimes>, &Vec<TaskTimes>)| {
            let share = |(then, now): (&TaskTimes, &TaskTimes)| {
                let part = |then: f64, now: f64| ((now - then) / passed_ms).clamp(0.0, 1.0);
                let busy = part(then.busy_ms, now.busy_ms);
                let blocked = part(then.blocked_ms, now.blocked_ms);
                Shares {
                    busy,
                    blocked,
                    idle: (1.0 - busy - blocked).max(0.0),
                }
            };
            then.iter().zip(now).map(share).collect()
        };
        Some(then.iter().zip(now).map(tasks).collect())
    }
}

/// All tasks of a node together.
fn mean(tasks: &[Shares]) -> Shares {
    let of =
        |part: fn(&Shares) -> f64| tasks.iter().map(part).sum::<f64>() / tasks.len().max(1) as f64;
    Shares {
        busy: of(|it| it.busy),
        blocked: of(|it| it.blocked),
        idle: of(|it| it.idle),
    }
}

/// A node whose tasks were measured.
struct Measured {
    name: String,
    role: Role,
    inputs: Vec<usize>,
}

/// Who holds back whom.
struct Cause {
    /// The node, unless it is unknown.
    node: Option<usize>,
    blocked: Vec<usize>,
}

/// By node, what its tasks did, over some time.
type ByNode = [Vec<Shares>];

fn bottleneck(nodes: &[Measured], lately: &ByNode, long: Option<&ByNode>) -> Option<Bottleneck> {
    let cause = cause(nodes, lately)?;
    // The cause may wander, as long as there is one.
    let lasted = long.and_then(|long| self::cause(nodes, long));
    let lasts = match lasted {
        Some(before) if !before.blocked.is_empty() || cause.blocked.is_empty() => Lasting::Chronic,
        _ => Lasting::Transient,
    };
    let name = |&node: &usize| nodes[node].name.clone();
    let holds_back: Vec<String> = cause.blocked.iter().map(name).collect();
    let lasting = match lasts {
        Lasting::Transient => "transient so far: not for a minute yet",
        Lasting::Chronic => "chronic: for a minute or longer",
    };
    let waiting = holds_back.join(", ");
    let Some(node) = cause.node else {
        return Some(Bottleneck {
            sentence: format!(
                "{waiting} wait for something that is no node, such as a checkpoint ({lasting})"
            ),
            node: None,
            task: None,
            holds_back,
            lasts,
        });
    };
    let (name, tasks) = (&nodes[node].name, &lately[node]);
    let (worst, all) = (worst(tasks), mean(tasks));
    let busiest = tasks[worst].busy;
    let count = tasks.len();
    let others = (all.busy * count as f64 - busiest) / (count.max(2) - 1) as f64;
    let is_uneven = count > 1 && busiest > WORKS_PART && others < busiest / 2.0;
    let percent = |part: f64| format!("{:.0}%", part * 100.0);
    let who = match is_uneven {
        true => format!(
            "task {} of {count} of {name} works for {} of its time, the others for {},",
            worst + 1,
            percent(busiest),
            percent(others)
        ),
        false => format!("{name} works for {} of its time", percent(all.busy)),
    };
    let sentence = match (nodes[node].role, holds_back.is_empty()) {
        (Role::Sink, _) => format!("{name}, a sink, holds back {waiting} ({lasting})"),
        (_, true) => format!("{who}: more rows would wait for it ({lasting})"),
        (_, false) if busiest < WORKS_PART => format!(
            "{name} holds back {waiting}, although it works for {} of its time: it waits for a \
             sink, a checkpoint or a core ({lasting})",
            percent(all.busy)
        ),
        (_, false) => format!("{who} and holds back {waiting} ({lasting})"),
    };
    Some(Bottleneck {
        node: Some(name.clone()),
        task: is_uneven.then_some(worst + 1),
        holds_back,
        lasts,
        sentence,
    })
}

/// The task that works most.
fn worst(tasks: &[Shares]) -> usize {
    let tasks = tasks.iter().enumerate();
    let worst = tasks.max_by(|(_, one), (_, other)| one.busy.total_cmp(&other.busy));
    worst.map_or(0, |(task, _)| task)
}

/// What holds back others, or would if more rows came.
fn cause(nodes: &[Measured], shares: &ByNode) -> Option<Cause> {
    let busiest = |node: usize| {
        let tasks = shares[node].iter();
        tasks.map(|task| task.busy).fold(0.0, f64::max)
    };
    let is_blocked = |node: usize| shares[node].iter().any(|task| task.blocked > BLOCKED_PART);
    let all = || 0..nodes.len();
    let blocked: Vec<usize> = all().filter(|&node| is_blocked(node)).collect();
    let most = |one: &usize, other: &usize| busiest(*one).total_cmp(&busiest(*other));
    if blocked.is_empty() {
        let node = all().max_by(most)?;
        return (busiest(node) > BUSY_PART).then_some(Cause {
            node: Some(node),
            blocked,
        });
    }
    let is_behind = |node: &usize| {
        let mut inputs = nodes[*node].inputs.iter();
        !is_blocked(*node) && inputs.any(|&input| is_blocked(input))
    };
    // A sink's work is not measured: it is the cause where no operator works much.
    let works = |node: &usize| busiest(*node) > WORKS_PART;
    let is_sink = |node: &usize| nodes[*node].role == Role::Sink;
    let behind = || all().filter(is_behind);
    let node = behind().filter(works).max_by(most);
    let node = node.or_else(|| behind().find(is_sink));
    Some(Cause {
        node: node.or_else(|| behind().max_by(most)),
        blocked,
    })
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn node(name: &str, role: Role, inputs: &[usize]) -> Measured {
        Measured {
            name: name.to_owned(),
            role,
            inputs: inputs.to_vec(),
        }
    }

    fn chain() -> [Measured; 4] {
        [
            node("orders", Role::Source, &[]),
            node("parsed", Role::Operator, &[0]),
            node("totals", Role::Operator, &[1]),
            node("out", Role::Sink, &[2]),
        ]
    }

    fn share(busy: f64, blocked: f64) -> Shares {
        Shares {
            busy,
            blocked,
            idle: (1.0 - busy - blocked).max(0.0),
        }
    }

    fn check(lately: &[Vec<Shares>], long: Option<&[Vec<Shares>]>, expected: &Expect) {
        let found = bottleneck(&chain(), lately, long);
        let sentence = found.map_or_else(|| "nothing".to_owned(), |found| found.sentence);
        expected.assert_eq(&sentence);
    }

    #[test]
    fn the_node_that_does_not_wait_is_the_cause() {
        let idle = vec![share(0.0, 0.0)];
        let calm = [
            idle.clone(),
            vec![share(0.3, 0.0)],
            idle.clone(),
            idle.clone(),
        ];
        let held = [
            vec![share(0.0, 0.8)],
            vec![share(0.1, 0.7)],
            vec![share(0.98, 0.0)],
            idle.clone(),
        ];
        check(&calm, Some(&held), &expect!["nothing"]);
        let expected = expect![
            "totals works for 98% of its time and holds back orders, parsed (transient so far: not for a minute yet)"
        ];
        check(&held, None, &expected);
        check(&held, Some(&calm), &expected);
        check(
            &held,
            Some(&held),
            &expect![
                "totals works for 98% of its time and holds back orders, parsed (chronic: for a minute or longer)"
            ],
        );
    }

    #[test]
    fn a_task_with_more_to_do_than_others_is_told() {
        let idle = vec![share(0.0, 0.0)];
        let uneven = [
            vec![share(0.0, 0.9)],
            vec![share(0.05, 0.9)],
            vec![share(0.1, 0.0), share(0.95, 0.0), share(0.1, 0.0)],
            idle,
        ];
        check(
            &uneven,
            None,
            &expect![
                "task 2 of 3 of totals works for 95% of its time, the others for 10%, and holds back orders, parsed (transient so far: not for a minute yet)"
            ],
        );
        let found = bottleneck(&chain(), &uneven, None).expect("there is one");
        assert_eq!(found.task, Some(2));
    }

    #[test]
    fn what_does_not_work_much_waits_for_something() {
        let idle = vec![share(0.0, 0.0)];
        let of = |parsed, totals| {
            [
                vec![share(0.0, 0.9)],
                vec![parsed],
                vec![totals],
                idle.clone(),
            ]
        };
        let sink = of(share(0.1, 0.9), share(0.1, 0.9));
        check(
            &sink,
            None,
            &expect![
                "out, a sink, holds back orders, parsed, totals (transient so far: not for a minute yet)"
            ],
        );
        let waits = of(share(0.1, 0.0), share(0.1, 0.0));
        check(
            &waits,
            None,
            &expect![
                "parsed holds back orders, although it works for 10% of its time: it waits for a sink, a checkpoint or a core (transient so far: not for a minute yet)"
            ],
        );
        let full = [
            idle.clone(),
            vec![share(0.97, 0.0)],
            idle.clone(),
            idle.clone(),
        ];
        check(
            &full,
            Some(&full),
            &expect![
                "parsed works for 97% of its time: more rows would wait for it (chronic: for a minute or longer)"
            ],
        );
    }

    #[test]
    fn a_minute_is_kept_of_the_same_nodes() {
        let history = LoadHistory::default();
        let progress = Arc::new(NodeProgress::new("totals", Role::Operator, 1));
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        for second in 0..=70 {
            history.look(vec![progress.clone()], at(second));
        }
        {
            let history = history.lock();
            assert_eq!(history.looks.len(), 61, "a minute is kept");
            assert!(history.over(LONG).is_some());
        }
        history.look(vec![Arc::new(progress.anew())], at(71));
        let history = history.lock();
        assert_eq!(history.looks.len(), 1, "others begin anew");
        assert_eq!(history.over(LATELY), None);
    }
}
