//! An instance of a plugin that serves one operator: calls its functions within
//! limits.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{
    ComponentExportIndex, ComponentNamedList, InstancePre, Lift, Lower, TypedFunc,
};

use super::boundary::lower::{self, CallInput};
use super::boundary::{Broken, lift};
use super::contract::{
    self as wire, ArgumentRef, BatchRef, GroupedRef, KeyedRef, PackedRef, StatesRef, StepsRef,
    TimersRef, ValueRef, WindowsRef,
};
use super::engine::Deadlines;
use super::limits::{MemoryLimit, failure};
use super::printed::{OperatorLog, Printed};
use super::wasi::World;
use crate::logic::Limits;
use crate::logic::{
    self, Accumulated, Callee, Columns, Failure, FailureKind, GroupTimers, Grouped, Instance,
    Keyed, Kind, OperatorInfo, Output, Processed, Rows, States, Steps, Transformed, Value,
};
use crate::stop::Stop;

type Transform = TypedFunc<(BatchRef<'static>,), (wire::Transformed,)>;
type Accumulate = TypedFunc<(GroupedRef<'static>, StatesRef<'static>), (wire::Accumulated,)>;
type AccumulateEach = TypedFunc<
    (GroupedRef<'static>, StatesRef<'static>, BatchRef<'static>),
    (wire::AccumulatedEach,),
>;
type Merge = TypedFunc<(BatchRef<'static>, &'static [u32]), (wire::Batch,)>;
type Finish = TypedFunc<(BatchRef<'static>, BatchRef<'static>, WindowsRef<'static>), (wire::Rows,)>;
type Process =
    TypedFunc<(Vec<BatchRef<'static>>, StepsRef<'static>, KeyedRef<'static>), (wire::Processed,)>;
type Open = TypedFunc<(&'static str, Vec<ArgumentRef<'static>>), (Result<(), String>,)>;
type Describe = TypedFunc<(), (wire::Plugin,)>;

/// The indices of the contract's functions in a component's exports.
#[derive(Clone, Copy)]
pub struct Exports {
    pub describe: ComponentExportIndex,
    pub open: ComponentExportIndex,
    /// For plugins with filters or transforms.
    pub transform: Option<ComponentExportIndex>,
    /// For plugins with aggregates.
    pub aggregate: Option<AggregateExports>,
    /// For plugins with processes.
    pub process: Option<ComponentExportIndex>,
}

#[derive(Clone, Copy)]
pub struct AggregateExports {
    pub accumulate: ComponentExportIndex,
    pub accumulate_each: ComponentExportIndex,
    pub merge: ComponentExportIndex,
    pub finish: ComponentExportIndex,
}

/// A compiled plugin, ready to be instantiated.
pub struct Compiled {
    pub pre: InstancePre<World>,
    pub exports: Exports,
    pub deadlines: Arc<Deadlines>,
}

/// An instance that no operator has been opened in yet.
struct StartedInstance {
    store: Store<World>,
    instance: wasmtime::component::Instance,
    limits: Limits,
    deadlines: Arc<Deadlines>,
}

impl Compiled {
    fn start(&self, limits: Limits, log: &Arc<OperatorLog>) -> Result<StartedInstance, Failure> {
        let world = World::new(
            MemoryLimit::new(limits.memory_bytes_max),
            Printed::new(Arc::clone(log)),
        );
        let mut store = Store::new(self.pre.engine(), world);
        store.limiter(|world| &mut world.memory);
        store.set_hostcall_fuel(limits.output_bytes_max);
        // A module's start function may run code.
        let _call = self.deadlines.call();
        store.epoch_deadline_callback(|mut store| store.data_mut().deadline.tick());
        store.data_mut().deadline.begin(limits.call_ms_max);
        store.set_epoch_deadline(1);
        match self.pre.instantiate(&mut store) {
            Ok(instance) => Ok(StartedInstance {
                store,
                instance,
                limits,
                deadlines: Arc::clone(&self.deadlines),
            }),
            Err(error) => {
                let stderr = store.data_mut().printed.end_call(false);
                Err(failure(&error, &limits, stderr))
            }
        }
    }

    /// Asks the plugin to describe itself.
    pub fn describe(
        &self,
        limits: Limits,
        log: &Arc<OperatorLog>,
    ) -> Result<wire::Plugin, Failure> {
        let mut running = self.start(limits, log)?;
        let describe: Describe = running.function(&self.exports.describe)?;
        let described = running.call(describe, ());
        let (plugin,) = described.inspect_err(|_| running.log_failed())?;
        // Checks the types of functions that are not called yet, before they
        // are needed.
        let _: Open = running.function(&self.exports.open)?;
        if let Some(transform) = &self.exports.transform {
            let _: Transform = running.function(transform)?;
        }
        if let Some(aggregate) = &self.exports.aggregate {
            running.aggregate(aggregate)?;
        }
        if let Some(process) = &self.exports.process {
            let _: Process = running.function(process)?;
        }
        Ok(plugin)
    }

    /// Makes an instance that serves one operator.
    pub fn open(
        &self,
        operator: &Arc<OperatorInfo>,
        arguments: &[(String, Value)],
        limits: Limits,
        log: &Arc<OperatorLog>,
    ) -> Result<Instance, Failure> {
        let mut running = self.start(limits, log)?;
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
        let opened = running.call(open, (operator.name.as_str(), arguments));
        let (opened,) = opened.inspect_err(|_| running.log_failed())?;
        opened.map_err(|refusal| Failure::new(FailureKind::Open, refusal))?;
        // Loading refuses a plugin that does not export what it describes.
        let not_exported = || {
            Failure::new(
                FailureKind::Open,
                format!("the plugin cannot be called as a {}", operator.kind.name()),
            )
        };
        match operator.kind {
            Kind::Filter | Kind::Transform => {
                let transform = self.exports.transform.ok_or_else(not_exported)?;
                Ok(Instance::Transform(Box::new(TransformInstance {
                    transform: running.function(&transform)?,
                    running,
                    operator: Arc::clone(operator),
                })))
            }
            Kind::Aggregate => {
                let aggregate = self.exports.aggregate.ok_or_else(not_exported)?;
                Ok(Instance::Aggregate(Box::new(AggregateInstance {
                    functions: running.aggregate(&aggregate)?,
                    running,
                    operator: Arc::clone(operator),
                })))
            }
            Kind::Process => {
                let process = self.exports.process.ok_or_else(not_exported)?;
                Ok(Instance::Process(Box::new(ProcessInstance {
                    process: running.function(&process)?,
                    running,
                    operator: Arc::clone(operator),
                })))
            }
            Kind::Join | Kind::Lookup | Kind::Recommend => Err(not_exported()),
        }
    }
}

impl StartedInstance {
    fn function<P, R>(&mut self, index: &ComponentExportIndex) -> Result<TypedFunc<P, R>, Failure>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        self.instance
            .get_typed_func(&mut self.store, index)
            .map_err(|error| {
                Failure::new(
                    FailureKind::Contract,
                    format!(
                        "has a function of another type than version {} of the contract says \
                         ({error:#}); {}",
                        wire::VERSION,
                        wire::BUILD_AGAIN
                    ),
                )
            })
    }

    fn aggregate(&mut self, exports: &AggregateExports) -> Result<AggregateFunctions, Failure> {
        Ok(AggregateFunctions {
            accumulate: self.function(&exports.accumulate)?,
            accumulate_each: self.function(&exports.accumulate_each)?,
            merge: self.function(&exports.merge)?,
            finish: self.function(&exports.finish)?,
        })
    }

    /// Calls a function within its limits.
    fn call<P, R>(&mut self, function: TypedFunc<P, R>, arguments: P) -> Result<R, Failure>
    where
        P: ComponentNamedList + Lower,
        R: ComponentNamedList + Lift,
    {
        let under_way = self.deadlines.call();
        self.store
            .data_mut()
            .deadline
            .begin(self.limits.call_ms_max);
        self.store.set_epoch_deadline(1);
        let answer = function.call(&mut self.store, arguments);
        drop(under_way);
        let printed = &mut self.store.data_mut().printed;
        let stderr = printed.end_call(answer.is_err());
        answer.map_err(|error| failure(&error, &self.limits, stderr))
    }
}

impl Callee for StartedInstance {
    fn obey(&mut self, stop: &Stop) {
        self.store.data_mut().deadline.obey(stop);
    }

    fn log_failed(&mut self) {
        self.store.data_mut().printed.log_held();
    }
}

impl StartedInstance {
    fn broken(&self, broken: Broken) -> Failure {
        broken.into_failure(self.limits.output_bytes_max)
    }
}

/// A filter's or transform's instance.
struct TransformInstance {
    running: StartedInstance,
    transform: Transform,
    operator: Arc<OperatorInfo>,
}

/// An aggregate's instance.
struct AggregateInstance {
    running: StartedInstance,
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

impl Callee for TransformInstance {
    fn obey(&mut self, stop: &Stop) {
        self.running.obey(stop);
    }

    fn log_failed(&mut self) {
        self.running.log_failed();
    }
}

impl logic::Transform for TransformInstance {
    fn transform(&mut self, input: Columns<'_>) -> Result<Transformed, Failure> {
        let schema = &self.operator.inputs[0].schema;
        let lowered = CallInput::new(schema, input)?;
        let (answer,) = self.running.call(self.transform, (lowered.batch()?,))?;

        let lifted = || {
            let output = match (self.operator.kind, answer.output) {
                (Kind::Filter, wire::Output::Selection(kept)) => {
                    Output::Selection(lift::selection(kept, input.rows)?)
                }
                (Kind::Filter, wire::Output::Rows(_)) => {
                    return Err(Broken::new(
                        "expected a selection of rows from a filter, found rows",
                    ));
                }
                (_, wire::Output::Selection(_)) => {
                    return Err(Broken::new(
                        "expected rows from a transform, found a selection",
                    ));
                }
                (_, wire::Output::Rows(rows)) => {
                    let limit = self.running.limits.output_bytes_max;
                    Output::Rows(lift::rows(
                        rows,
                        &self.operator.outputs[0].schema,
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

impl Callee for AggregateInstance {
    fn obey(&mut self, stop: &Stop) {
        self.running.obey(stop);
    }

    fn log_failed(&mut self) {
        self.running.log_failed();
    }
}

impl logic::Aggregate for AggregateInstance {
    fn accumulate(
        &mut self,
        rows: Grouped<'_>,
        states: States<'_>,
    ) -> Result<Accumulated, Failure> {
        let input = rows.input;
        let lowered = CallInput::new(&self.operator.inputs[0].schema, input)?;
        let existing = CallInput::new(&self.operator.state, states.existing)?;
        let states_given = StatesRef {
            columns: existing.batch()?,
            groups: lower::count(states.groups)?,
        };
        let arguments = (grouped(&lowered, rows)?, states_given);
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
        rows: Grouped<'_>,
        states: States<'_>,
        keys: Columns<'_>,
    ) -> Result<(Accumulated, Rows), Failure> {
        let input = rows.input;
        let schema = &self.operator.inputs[0].schema;
        let lowered = CallInput::new(schema, input)?;
        let existing = CallInput::new(&self.operator.state, states.existing)?;
        let states_given = StatesRef {
            columns: existing.batch()?,
            groups: lower::count(states.groups)?,
        };
        let keys = CallInput::new(&self.operator.key, keys)?;
        let arguments = (grouped(&lowered, rows)?, states_given, keys.batch()?);
        let (answer,) = self
            .running
            .call(self.functions.accumulate_each, arguments)?;

        let limit = self.running.limits.output_bytes_max;
        let lifted = || {
            let results = lift::rows(
                answer.results,
                &self.operator.outputs[0].schema,
                schema,
                input,
                limit,
            )?;
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
        let lowered = CallInput::new(&self.operator.state, states)?;
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
        keys: Columns<'_>,
        starts: &[i64],
        ends: &[i64],
    ) -> Result<Rows, Failure> {
        let lowered = CallInput::new(&self.operator.state, states)?;
        let keys = CallInput::new(&self.operator.key, keys)?;
        let windows = WindowsRef { starts, ends };
        let arguments = (lowered.batch()?, keys.batch()?, windows);
        let (answer,) = self.running.call(self.functions.finish, arguments)?;
        let limit = self.running.limits.output_bytes_max;
        lift::rows(
            answer,
            &self.operator.outputs[0].schema,
            &self.operator.state,
            states,
            limit,
        )
        .map_err(|broken| self.running.broken(broken))
    }
}

fn grouped<'a>(input: &'a CallInput<'_>, rows: Grouped<'a>) -> Result<GroupedRef<'a>, Failure> {
    Ok(GroupedRef {
        columns: input.batch()?,
        groups: rows.groups,
        taken_back: rows.taken_back,
    })
}

/// A process's instance.
struct ProcessInstance {
    running: StartedInstance,
    process: Process,
    operator: Arc<OperatorInfo>,
}

impl Callee for ProcessInstance {
    fn obey(&mut self, stop: &Stop) {
        self.running.obey(stop);
    }

    fn log_failed(&mut self) {
        self.running.log_failed();
    }
}

impl logic::Process for ProcessInstance {
    fn process(
        &mut self,
        inputs: &[Columns<'_>],
        steps: &Steps,
        keyed: Keyed<'_>,
    ) -> Result<Processed, Failure> {
        let ports = self.operator.inputs.iter().zip(inputs);
        let lowered: Vec<CallInput<'_>> = ports
            .map(|(port, &input)| CallInput::new(&port.schema, input))
            .collect::<Result<_, _>>()?;
        let batches = lowered.iter().map(CallInput::batch);
        let keys = CallInput::new(&self.operator.key, keyed.keys)?;
        let states = CallInput::new(&self.operator.state, keyed.states)?;
        let arguments = (
            batches.collect::<Result<Vec<_>, _>>()?,
            StepsRef {
                inputs: &steps.inputs,
                groups: &steps.groups,
                times: &steps.times,
                watermarks: &steps.watermarks,
                taken_back: &steps.taken_back,
                now: steps.now_ms,
            },
            KeyedRef {
                groups: lower::count(keyed.groups)?,
                keys: keys.batch()?,
                states: states.batch()?,
                event_timers: timers(keyed.event_timers),
                processing_timers: timers(keyed.processing_timers),
            },
        );
        let (answer,) = self.running.call(self.process, arguments)?;
        let limit = self.running.limits.output_bytes_max;
        lift::processed(answer, &self.operator, &steps.inputs, keyed.groups, limit)
            .map_err(|broken| self.running.broken(broken))
    }
}

fn timers(timers: &GroupTimers) -> TimersRef<'_> {
    TimersRef {
        groups: &timers.groups,
        times: &timers.times,
        names: PackedRef {
            ends: &timers.ends,
            data: &timers.names,
        },
    }
}
