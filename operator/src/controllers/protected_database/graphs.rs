//! The cascade graph of each database as its catalog was last read: kept for the page, so that no view of the page
//! connects to a database.

use crate::mutex::locked;
use jiff::Timestamp;
use pgrail_guard::Graph;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// Tables of one graph that are kept: those with most rows at risk.
pub(crate) const MOST_TABLES: usize = 400;
/// Tables of all graphs together that are kept, which bounds the memory. A graph that does not fit is not kept.
const MOST_OF_ALL: usize = 100_000;

/// The graphs, by the UID of the database.
#[derive(Default)]
pub(crate) struct Graphs(Mutex<HashMap<String, Arc<ReadGraph>>>);

/// A graph, and when it was read.
pub(crate) struct ReadGraph {
    pub(crate) at: Timestamp,
    /// `None`: not kept, because the graphs of all databases together are too large.
    pub(crate) graph: Option<Graph>,
}

impl Graphs {
    /// The last graph of a database.
    pub(crate) fn last(&self, uid: &str) -> Option<Arc<ReadGraph>> {
        self.graphs().get(uid).cloned()
    }

    /// The catalog of a database was read.
    pub(super) fn record(&self, uid: &str, at: Timestamp, graph: Graph) {
        let mut graphs = self.graphs();
        graphs.remove(uid);
        let kept: usize = graphs.values().filter_map(|it| it.graph.as_ref()).map(|it| it.tables.len()).sum();
        let graph = (kept + graph.tables.len() <= MOST_OF_ALL).then_some(graph);
        graphs.insert(uid.to_owned(), Arc::new(ReadGraph { at, graph }));
    }

    /// The database was deleted.
    pub(super) fn forget(&self, uid: &str) {
        self.graphs().remove(uid);
    }

    fn graphs(&self) -> MutexGuard<'_, HashMap<String, Arc<ReadGraph>>> {
        locked(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgrail_guard::BlastRadius;

    fn of(tables: usize) -> Graph {
        let table = BlastRadius {
            oid: 1,
            table: "public.users".to_owned(),
            rows: 1,
            cascade_tables: 1,
            rows_at_risk: 1,
            per_row: 1,
            guarded: false,
        };
        Graph { tables: vec![table; tables], ..Graph::default() }
    }

    #[test]
    fn the_graphs_of_all_databases_together_are_bounded() {
        let graphs = Graphs::default();
        let kept = |uid: &str| graphs.last(uid).and_then(|it| it.graph.as_ref().map(|it| it.tables.len()));
        graphs.record("a", Timestamp::UNIX_EPOCH, of(MOST_OF_ALL - 1));
        graphs.record("b", Timestamp::UNIX_EPOCH, of(2));
        assert_eq!((kept("a"), kept("b")), (Some(MOST_OF_ALL - 1), None));
        assert!(graphs.last("b").is_some(), "known as not kept");
        graphs.record("a", Timestamp::UNIX_EPOCH, of(1));
        graphs.record("b", Timestamp::UNIX_EPOCH, of(2));
        assert_eq!((kept("a"), kept("b")), (Some(1), Some(2)));
        graphs.forget("a");
        assert!(graphs.last("a").is_none());
    }
}
