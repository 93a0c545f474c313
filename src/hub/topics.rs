//! Which streams want which topic: lists that join and leave in constant time per topic.

use std::collections::HashMap;

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

/// The streams of each topic.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    lists: HashMap<Topic, Vec<Member>>,
}

impl Topics {
    /// Adds a stream to its topics, which are distinct, and returns its places.
    pub(crate) fn join(&mut self, stream: u32, topics: &[Topic]) -> Box<[Place]> {
        let places = topics.iter().zip(0u32..).map(|(topic, place)| {
            let list = self.lists.entry(topic.clone()).or_default();
            list.push(Member { stream, place });
            Place {
                topic: topic.clone(),
                index: (list.len() - 1) as u32,
            }
        });
        places.collect()
    }

    /// Removes a stream from its places. Returns what moved: stream, its place, its new index.
    pub(crate) fn leave(&mut self, places: &[Place]) -> Vec<(u32, u32, u32)> {
        let mut moved = Vec::new();
        for place in places {
            let list = self
                .lists
                .get_mut(&place.topic)
                .expect("a joined topic has a list");
            list.swap_remove(place.index as usize);
            if let Some(member) = list.get(place.index as usize) {
                moved.push((member.stream, member.place, place.index));
            }
            if list.is_empty() {
                self.lists.remove(&place.topic);
            }
        }
        moved
    }

    /// The streams of a topic.
    pub(crate) fn of(&self, topic: &Topic) -> impl ExactSizeIterator<Item = u32> + '_ {
        let list = self.lists.get(topic).map_or(&[][..], Vec::as_slice);
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
