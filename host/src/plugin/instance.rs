//! One operator of a plugin at work: calls within limits, and what is said of
//! those that fail.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, TypedFunc,
};

use super::boundary::lower::{self, Input};
use super::boundary::{Broken, lift};
use super::contract::{self as wire, ArgumentRef, BatchRef, StatesRef, ValueRef, WindowsRef};
use super::engine::ticks;
use super::limits::{MemoryLimit, failure};
use super::printed::Printed;
use super::wasi::World;
use crate::logic::Limits;
use crate::logic::{
    self, Accumulated, Columns, Failure, FailureKind, Instance, Kind, OperatorInfo, Output, Rows,
    States, Transformed, Value,
};

type Transform = TypedFunc<(BatchRef<'static>,), (wire::Transformed,)>;
type Accumulate =
    TypedFunc<(BatchRef<'static>, &'static [u32], StatesRef<'static>), (wire::Accumulated,)>;
type AccumulateEach =
    TypedFunc<(BatchRef<'static>, &'static [u32], StatesRef<'static>), (wire::AccumulatedEach,)>;
type Merge = TypedFunc<(BatchRef<'static>, &'static [u32]), (wire::Batch,)>;
type Finish = TypedFunc<(BatchRef<'static>, WindowsRef<'static>), (wire::Rows,)>;
type Open = TypedFunc<(&'static str, Vec<ArgumentRef<'static>>), (Result<(), String>,)>;
type Describe = TypedFunc<(), (wire::Plugin,)>;

/// Where a component exports the contract's functions.
#[derive(Clone, Copy)]
pub struct Exports {
    pub describe: ComponentExportIndex,
    pub open: ComponentExportIndex,
    pub transform: ComponentExportIndex,
    pub accumulate: ComponentExportIndex,
    pub accumulate_each: ComponentExportIndex,
    pub merge: ComponentExportIndex,
    pub finish: ComponentExportIndex,
}

/// A plugin ready to be instantiated.
pub struct Compiled {
    pub pre: InstancePre<World>,
    pub exports: Exports,
}

/// An instance that has not been asked to be an operator yet.
struct Running {
    store: Store<World>,
    instance: wasmtime::component::Instance,
    limits: Limits,
}

impl Compiled {
    fn start(&self, limits: Limits, label: &Arc<str>) -> Result<Running, Failure> {
        let world = World::new(
            MemoryLimit::new(limits.memory_bytes_max),
            Printed::new(Arc::clone(label)),
        );
        let mut store = Store::new(self.pre.engine(), world);
        store.limiter(|world| &mut world.memory);
        store.set_hostcall_fuel(limits.output_bytes_max);
        store.set_epoch_deadline(ticks(limits.call_ms_max));
        match self.pre.instantiate(&mut store) {
            Ok(instance) => Ok(Running {
                store,
                instance,
                limits,
            }),
            Err(error) => {
                let stderr = store.data_mut().printed.end_call();
                Err(failure(&error, &limits, stderr))
            }
        }
    }

    /// What the plugin says of itself.
    pub fn describe(&self, limits: Limits, label: &Arc<str>) -> Result<wire::Plugin, Failure> {
        let mut running = self.start(limits, label)?;
        let describe: Describe = running.function(&self.exports.describe)?;
        let (plugin,) = running.call(describe, ())?;
        // Types of what is not called yet are checked while nothing depends on it.
        let _: Open = running.function(&self.exports.open)?;
        let _: Transform = running.function(&self.exports.transform)?;
        running.aggregation(&self.exports)?;
        Ok(plugin)
    }

    /// An instance that serves one operator.
    pub fn open(
        &self,
        operator: &Arc<OperatorInfo>,
        arguments: &[(String, Value)],
        limits: Limits,
        label: &Arc<str>,
    ) -> Result<Instance, Failure> {
        let mut running = self.start(limits, label)?;
        let open: Open = running.function(&self.exports.open)?;
        let arguments = arguments
            .iter()
            .map(|(name, value)| ArgumentRef {
                name,
                value: match value {
                    Value::Boolean(value) => ValueRef::Boolean(*value),
                    Value::Integer(value) => ValueRef::Integer(*value),
                    Value::Number(value) => ValueRef::Number(*value),
                    Value::Text(value) => ValueRef::Text(value),
                    Value::Texts(value) => ValueRef::Texts(value),
                },
            })
            .collect();
        let (opened,) = running.call(open, (operator.name.as_str(), arguments))?;
        opened.map_err(|refusal| Failure {
            kind: FailureKind::Open,
            message: refusal,
            panic: None,
        })?;
        Ok(match operator.kind {
            Kind::Filter | Kind::Transform => Instance::Transform(Box::new(TransformInstance {
                transform: running.function(&self.exports.transform)?,
                running,
                operator: Arc::clone(operator),
            })),
            _ => Instance::Aggregate(Box::new(AggregateInstance {
                functions: running.aggregation(&self.exports)?,
                running,
                operator: Arc::clone(operator),
            })),
        })
    }
}

impl Running {
    fn function<P, R>(&mut self, index: &ComponentExportIndex) -> Result<TypedFunc<P, R>, Failure>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.instance
            .get_typed_func(&mut self.store, index)
            .map_err(|error| Failure {
                kind: FailureKind::Contract,
                message: format!("a function has another type than the contract says: {error:#}"),
                panic: None,
            })
    }

    fn aggregation(&mut self, exports: &Exports) -> Result<AggregateFunctions, Failure> {
        Ok(AggregateFunctions {
            accumulate: self.function(&exports.accumulate)?,
            accumulate_each: self.function(&exports.accumulate_each)?,
            merge: self.function(&exports.merge)?,
            finish: self.function(&exports.finish)?,
        })
    }

    /// Calls a function within the limits.
    fn call<P, R>(&mut self, function: TypedFunc<P, R>, arguments: P) -> Result<R, Failure>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.store
            .set_epoch_deadline(ticks(self.limits.call_ms_max));
        let answer = function.call(&mut self.store, arguments);
        let stderr = self.store.data_mut().printed.end_call();
        answer.map_err(|error| failure(&error, &self.limits, stderr))
    }

    fn broken(&self, broken: Broken) -> Failure {
        broken.into_failure(self.limits.output_bytes_max)
    }
}

/// A filter's or transform's instance.
struct TransformInstance {
    running: Running,
    transform: Transform,
    operator: Arc<OperatorInfo>,
}

/// An aggregate's instance.
struct AggregateInstance {
    running: Running,
    functions: AggregateFunctions,
    operator: Arc<OperatorInfo>,
}

#[derive(Clone, Copy)]
struct AggregateFunctions {
    accumulate: Accumulate,
    accumulate_each: AccumulateEach,
    merge: Merge,
    finish: Finish,
}

impl logic::Transform for TransformInstance {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure> {
        let schema = &self.operator.inputs[0].schema;
        let lowered = Input::new(schema, input)?;
        let (answer,) = self.running.call(self.transform, (lowered.batch()?,))?;

        let lifted = || {
            let output = match (self.operator.kind, answer.output) {
                (Kind::Filter, wire::Output::Selection(kept)) => {
                    Output::Selection(lift::selection(kept, input.rows)?)
                }
                (Kind::Filter, wire::Output::Rows(_)) => {
                    return Err(Broken::new("rows, where a filter answers with a selection"));
                }
                (_, wire::Output::Selection(_)) => {
                    return Err(Broken::new(
                        "a selection, where a transform answers with rows",
                    ));
                }
                (_, wire::Output::Rows(rows)) => {
                    let limit = self.running.limits.output_bytes_max;
                    Output::Rows(lift::rows(
                        rows,
                        &self.operator.output,
                        schema,
                        input,
                        limit,
                    )?)
                }
            };
            let answered = match &output {
                Output::Selection(kept) => kept,
                Output::Rows(rows) => &rows.parents,
            };
            let rejects = lift::rejects(answer.rejects, input.rows, answered)?;
            Ok(Transformed { output, rejects })
        };
        lifted().map_err(|broken| self.running.broken(broken))
    }
}

impl logic::Aggregate for AggregateInstance {
    fn accumulate(
        &mut self,
        input: Columns<'_>,
        groups: &[u32],
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let lowered = Input::new(&self.operator.inputs[0].schema, input)?;
        let existing = Input::new(&self.operator.state, states.existing)?;
        let states_given = StatesRef {
            columns: existing.batch()?,
            groups: lower::count(states.groups)?,
        };
        let arguments = (lowered.batch()?, groups, states_given);
        let (answer,) = self.running.call(self.functions.accumulate, arguments)?;

        let lifted = || {
            Ok(Accumulated {
                states: lift::states(answer.states, &self.operator.state, states.groups)?,
                rejects: lift::rejects(answer.rejects, input.rows, &[])?,
            })
        };
        lifted().map_err(|broken| self.running.broken(broken))
    }

    fn accumulate_each(
        &mut self,
        input: Columns<'_>,
        groups: &[u32],
        states: States<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        let schema = &self.operator.inputs[0].schema;
        let lowered = Input::new(schema, input)?;
        let existing = Input::new(&self.operator.state, states.existing)?;
        let states_given = StatesRef {
            columns: existing.batch()?,
            groups: lower::count(states.groups)?,
        };
        let arguments = (lowered.batch()?, groups, states_given);
        let (answer,) = self
            .running
            .call(self.functions.accumulate_each, arguments)?;

        let limit = self.running.limits.output_bytes_max;
        let lifted = || {
            let results = lift::rows(answer.results, &self.operator.output, schema, input, limit)?;
            let accumulated = Accumulated {
                states: lift::states(answer.states, &self.operator.state, states.groups)?,
                rejects: lift::rejects(answer.rejects, input.rows, &results.parents)?,
            };
            Ok((accumulated, results))
        };
        lifted().map_err(|broken| self.running.broken(broken))
    }

    fn merge(
        &mut self,
        states: Columns<'_>,
        groups: &[u32],
    ) -> Result<Vec<arrow_array::ArrayRef>, Failure> {
        let lowered = Input::new(&self.operator.state, states)?;
        let (answer,) = self
            .running
            .call(self.functions.merge, (lowered.batch()?, groups))?;
        let merged = groups.last().map_or(0, |&last| last as usize + 1);
        lift::states(answer, &self.operator.state, merged)
            .map_err(|broken| self.running.broken(broken))
    }

    fn finish(
        &mut self,
        states: Columns<'_>,
        starts: &[i64],
        ends: &[i64],
    ) -> Result<Rows, Failure> {
        let lowered = Input::new(&self.operator.state, states)?;
        let windows = WindowsRef { starts, ends };
        let (answer,) = self
            .running
            .call(self.functions.finish, (lowered.batch()?, windows))?;
        let limit = self.running.limits.output_bytes_max;
        lift::rows(
            answer,
            &self.operator.output,
            &self.operator.state,
            states,
            limit,
        )
        .map_err(|broken| self.running.broken(broken))
    }
}
