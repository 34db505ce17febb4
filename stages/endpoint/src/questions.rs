//! Questions, and those that go into one request.

use crate::protocol::Protocol;

/// Questions by their digests, in the order in which they are to be asked.
pub type Questions<P> = Vec<(String, <P as Protocol>::Question)>;

/// Questions that go into one request.
pub(crate) type Group<P> = Questions<P>;

/// Neighbours that can go together, in groups of at most so many.
pub(crate) fn groups<P: Protocol>(protocol: &P, questions: Questions<P>, together: usize) -> Vec<Group<P>> {
    let mut groups: Vec<Group<P>> = Vec::new();
    for (id, question) in questions {
        match groups.last_mut() {
            Some(group) if group.len() < together && protocol.alike(&group[0].1, &question) => {
                group.push((id, question));
            }
            _ => groups.push(vec![(id, question)]),
        }
    }
    groups
}
