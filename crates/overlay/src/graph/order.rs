//! Orders of a graph. Nothing here recurses: chains of dependencies may be
//! as long as the graph.

use reapi_proto::DigestFunction;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{Element, Graph, GraphError};

/// A graph of these elements, dependencies first.
pub(super) fn sorted(digest_function: DigestFunction, elements: Vec<Element>) -> Result<Graph, GraphError> {
    let mut listed: FxHashMap<&str, usize> = FxHashMap::default();
    for (row, element) in elements.iter().enumerate() {
        check(digest_function, row, element)?;
        if listed.insert(&element.name, row).is_some() {
            return Err(GraphError::Duplicate { name: element.name.clone() });
        }
    }
    let mut dependencies = Vec::with_capacity(elements.len());
    for element in &elements {
        let mut rows = Vec::new();
        let mut seen = FxHashSet::default();
        for name in element.build_deps.iter().flatten() {
            let row = *listed.get(name.as_str()).ok_or_else(|| GraphError::UnknownDependency {
                element: element.name.clone(),
                dependency: name.clone(),
            })?;
            if seen.insert(row) {
                rows.push(row);
            }
        }
        dependencies.push(rows);
        let staged = element.staged.iter().flatten().map(|name| ("staged", name));
        let platforms = element.platforms.iter().flatten().flatten().map(|name| ("platforms", name));
        if let Some((member, unknown)) = staged.chain(platforms).find(|(_, name)| !listed.contains_key(name.as_str())) {
            return Err(GraphError::Element {
                element: element.name.clone(),
                member: member.to_owned(),
                expected: "names of elements of this graph".to_owned(),
                found: format!("{unknown:?}"),
            });
        }
    }
    let order = topological(&dependencies)
        .map_err(|cycle| GraphError::Cycle { cycle: cycle.iter().map(|row| elements[*row].name.clone()).collect() })?;
    Ok(renumbered(digest_function, elements, &dependencies, &order))
}

fn check(digest_function: DigestFunction, row: usize, element: &Element) -> Result<(), GraphError> {
    let Element { name, sources, artifact, subactions, speculative_actions, .. } = element;
    if name.is_empty() {
        return Err(GraphError::Element {
            element: format!("element {}", row + 1),
            member: "name".to_owned(),
            expected: "a name".to_owned(),
            found: "empty".to_owned(),
        });
    }
    let single = [("sources", sources), ("artifact", artifact), ("speculative_actions", speculative_actions)];
    let single = single.into_iter().filter_map(|(member, digest)| Some((member, digest.as_ref()?)));
    let listed = subactions.iter().flatten().map(|digest| ("subactions", digest));
    match single.chain(listed).find(|(_, digest)| digest.function() != digest_function) {
        None => Ok(()),
        Some((member, digest)) => Err(GraphError::Element {
            element: name.clone(),
            member: member.to_owned(),
            expected: format!("a {digest_function} digest, the graph's function"),
            found: format!("a {} digest, {digest}", digest.function()),
        }),
    }
}

fn renumbered(
    digest_function: DigestFunction,
    mut elements: Vec<Element>,
    dependencies: &[Vec<usize>],
    order: &[usize],
) -> Graph {
    let mut position = vec![0; order.len()];
    for (new, old) in order.iter().enumerate() {
        position[*old] = new;
    }
    let elements: Vec<Element> = order.iter().map(|old| std::mem::take(&mut elements[*old])).collect();
    let dependencies: Vec<Vec<usize>> =
        order.iter().map(|old| dependencies[*old].iter().map(|row| position[*row]).collect()).collect();
    let mut dependents = vec![Vec::new(); order.len()];
    for (row, below) in dependencies.iter().enumerate() {
        for dependency in below {
            dependents[*dependency].push(row);
        }
    }
    let rows = elements.iter().enumerate().map(|(row, element)| (element.name.clone(), row)).collect();
    Graph { digest_function, elements, rows, dependencies, dependents }
}

/// Every row after the rows that it leads to, depth-first from row 0 on; or
/// the first cycle found, its first row repeated at the end.
fn topological(edges: &[Vec<usize>]) -> Result<Vec<usize>, Vec<usize>> {
    let mut state = vec![State::New; edges.len()];
    let mut order = Vec::with_capacity(edges.len());
    for start in 0..edges.len() {
        visit(start, edges, &mut state, &mut order)?;
    }
    Ok(order)
}

/// Everything that `start` leads to, each after what it leads to itself; `start` comes last.
pub(super) fn depth_first(start: usize, edges: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    // A graph that was sorted has no cycle left to find.
    let _ = visit(start, edges, &mut FxHashMap::default(), &mut order);
    order
}

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    New,
    /// On the way from the start to the row that is looked at.
    Open,
    Done,
}

/// Where states are kept: a table for whole graphs, a map for what one element reaches.
trait States {
    fn of(&self, row: usize) -> State;
    fn set(&mut self, row: usize, state: State);
}

impl States for Vec<State> {
    fn of(&self, row: usize) -> State {
        self[row]
    }

    fn set(&mut self, row: usize, state: State) {
        self[row] = state;
    }
}

impl States for FxHashMap<usize, State> {
    fn of(&self, row: usize) -> State {
        self.get(&row).copied().unwrap_or_default()
    }

    fn set(&mut self, row: usize, state: State) {
        self.insert(row, state);
    }
}

fn visit(
    start: usize,
    edges: &[Vec<usize>],
    states: &mut impl States,
    order: &mut Vec<usize>,
) -> Result<(), Vec<usize>> {
    if states.of(start) != State::New {
        return Ok(());
    }
    states.set(start, State::Open);
    let mut way = vec![(start, edges[start].iter())];
    while let Some((row, rest)) = way.last_mut() {
        let row = *row;
        match rest.next().map(|next| (*next, states.of(*next))) {
            Some((next, State::New)) => {
                states.set(next, State::Open);
                way.push((next, edges[next].iter()));
            }
            Some((next, State::Open)) => {
                let around = way.iter().map(|(row, _)| *row).skip_while(|row| *row != next);
                return Err(around.chain([next]).collect());
            }
            Some((_, State::Done)) => {}
            None => {
                states.set(row, State::Done);
                order.push(row);
                way.pop();
            }
        }
    }
    Ok(())
}
