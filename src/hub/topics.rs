//! Which streams want which topic: lists that join and leave in constant time per topic.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::topic::Topic;

/// A stream's place in the list of one topic.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) topic: Topic,
    index: u32,
}

/// One entry of a topic's list: the stream, and which of its places this one is.
#[derive(Clone, Copy, Debug)]
struct Member {
    stream: u32,
    place: u32,
}

/// The members of one topic: most topics are somebody's own, and need no list.
#[derive(Debug)]
enum Members {
    One(Member),
    Many(Vec<Member>),
}

impl Members {
    fn push(&mut self, member: Member) {
        match self {
            Self::One(one) => *self = Self::Many(vec![*one, member]),
            Self::Many(many) => many.push(member),
        }
    }

    fn as_slice(&self) -> &[Member] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

/// The streams of each topic.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    lists: HashMap<Topic, Members>,
}

impl Topics {
    /// Adds a stream to its topics, which are distinct, and returns its places.
    pub(crate) fn join(&mut self, stream: u32, topics: &[Topic]) -> Box<[Place]> {
        let places = topics.iter().zip(0u32..).map(|(topic, place)| {
            let member = Member { stream, place };
            let (topic, index) = match self.lists.entry(topic.clone()) {
                Entry::Vacant(entry) => {
                    // Streams of a topic share its text.
                    let entry = entry.insert_entry(Members::One(member));
                    (entry.key().clone(), 0)
                }
                Entry::Occupied(mut entry) => {
                    entry.get_mut().push(member);
                    (entry.key().clone(), entry.get().as_slice().len() - 1)
                }
            };
            Place {
                topic,
                index: index as u32,
            }
        });
        places.collect()
    }

    /// Removes a stream from its places. Returns what moved: stream, its place, its new index.
    pub(crate) fn leave(&mut self, places: &[Place]) -> Vec<(u32, u32, u32)> {
        let mut moved = Vec::new();
        for place in places {
            let members = self.lists.get_mut(&place.topic);
            let left = match members.expect("a joined topic has members") {
                Members::One(_) => &[][..],
                Members::Many(many) => {
                    many.swap_remove(place.index as usize);
                    // What a crowd took is given back when it has left.
                    if many.len() < many.capacity() / 4 {
                        many.shrink_to(many.len() * 2);
                    }
                    many
                }
            };
            if let Some(member) = left.get(place.index as usize) {
                moved.push((member.stream, member.place, place.index));
            }
            if left.is_empty() {
                self.lists.remove(&place.topic);
            }
        }
        moved
    }

    /// The streams of a topic.
    pub(crate) fn of(&self, topic: &Topic) -> impl ExactSizeIterator<Item = u32> + '_ {
        let list = self.lists.get(topic).map_or(&[][..], Members::as_slice);
        list.iter().map(|member| member.stream)
    }
}

impl Place {
    /// Follows a move that [`Topics::leave`] reported.
    pub(crate) fn moved(&mut self, index: u32) {
        self.index = index;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What a stream wants, and where it stands in the lists.
    type Joined = (Vec<Topic>, Box<[Place]>);

    proptest! {
        #[test]
        fn lists_hold_who_joined_and_has_not_left(
            steps in proptest::collection::vec((0usize..8, proptest::collection::btree_set(0u8..5, 1..4)), 1..60),
        ) {
            let mut topics = Topics::default();
            let mut here: Vec<Option<Joined>> = vec![None; 8];
            for (stream, wanted) in steps {
                if let Some((_, places)) = here[stream].take() {
                    for (other, place, index) in topics.leave(&places) {
                        if let Some((_, places)) = &mut here[other as usize] {
                            places[place as usize].moved(index);
                        }
                    }
                } else {
                    let wanted: Vec<Topic> = wanted.iter()
                        .map(|n| Topic::parse(&format!("t{n}")).expect("a topic")).collect();
                    let places = topics.join(stream as u32, &wanted);
                    here[stream] = Some((wanted, places));
                }
                for n in 0..5 {
                    let topic = Topic::parse(&format!("t{n}")).expect("a topic");
                    let mut listed: Vec<u32> = topics.of(&topic).collect();
                    listed.sort_unstable();
                    let expected: Vec<u32> = (0u32..8)
                        .filter(|&s| here[s as usize].as_ref().is_some_and(|(w, _)| w.contains(&topic)))
                        .collect();
                    prop_assert_eq!(listed, expected);
                }
            }
        }
    }
}
