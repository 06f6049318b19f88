//! What a node reads, edge by edge, and the input ports that this makes.

use super::builder::Builder;
use super::columns::{Changes, Upstream};
use crate::logic::Port;
use crate::plan::{Edge, Exchange, InputPort};

/// The outputs that feed a node.
pub(super) struct Reading<'a, 'p> {
    /// `None` for outputs that are not known because of a mistake.
    pub upstreams: &'a [Option<Upstream<'p>>],
    /// The node of each section.
    pub ids: &'a [usize],
    /// The port that each edge comes into.
    pub ports: Vec<usize>,
}

impl<'p> Reading<'_, 'p> {
    /// The upstreams, if all are known.
    pub fn known(&self) -> Option<Vec<&Upstream<'p>>> {
        self.upstreams.iter().map(Option::as_ref).collect()
    }

    /// Whether rows that it reads may take others back.
    pub fn changes(&self) -> Option<Changes> {
        let known = self.upstreams.iter().flatten();
        known.filter_map(|up| up.relation.changes).max()
    }

    /// Whether some of them are results of sessions.
    pub fn has_sessions(&self) -> bool {
        let mut known = self.upstreams.iter().flatten();
        known.any(|up| up.relation.changes == Some(Changes::Sessions))
    }

    /// Those of the known upstreams that feed a port.
    pub fn of_port<'u>(&self, known: &[&'u Upstream<'p>], port: usize) -> Vec<&'u Upstream<'p>> {
        let edges = known.iter().zip(&self.ports);
        let edges = edges.filter(|(_, of)| **of == port);
        edges.map(|(up, _)| *up).collect()
    }

    /// The node's input ports, if all upstreams are known. `exchange` is asked for each
    /// edge.
    pub fn inputs(
        &self,
        ports: &[Port],
        exchange: impl Fn(usize) -> Exchange,
    ) -> Option<Vec<InputPort>> {
        let edge = |(i, up): (usize, &Upstream)| Edge {
            from: self.ids[up.section],
            output: up.output,
            exchange: exchange(i),
        };
        let edges = self.known()?.into_iter().enumerate().map(edge).collect();
        let of_ports = self.by_port(ports.len(), edges);
        let port = |(port, edges): (&Port, Vec<Edge>)| InputPort {
            name: port.name.clone(),
            schema: port.schema.clone(),
            edges,
        };
        Some(ports.iter().zip(of_ports).map(port).collect())
    }

    /// What there is for each edge, by port.
    pub fn by_port<T>(&self, ports: usize, of_edges: Vec<T>) -> Vec<Vec<T>> {
        let mut of_ports: Vec<Vec<T>> = (0..ports).map(|_| Vec::new()).collect();
        for (&port, of_edge) in self.ports.iter().zip(of_edges) {
            of_ports[port].push(of_edge);
        }
        of_ports
    }
}

impl Builder<'_> {
    /// [`Builder::columns_read`] for each edge, by the schema of its port.
    pub(super) fn columns_of_edges(
        &mut self,
        reader: &str,
        ports: &[Port],
        reading: &Reading,
    ) -> Option<Vec<Vec<usize>>> {
        let edges = reading.upstreams.iter().zip(&reading.ports);
        let columns: Vec<Option<Vec<usize>>> = edges
            .map(|(up, &port)| self.columns_read(reader, &ports[port].schema, up.as_ref()?))
            .collect();
        columns.into_iter().collect()
    }
}
