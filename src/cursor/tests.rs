use proptest::prelude::*;

use super::snapshot::tests::any_snapshot;
use super::*;

fn any_mark() -> impl Strategy<Value = Mark> {
    (any_snapshot(), 0i64..90, any::<u32>()).prop_map(|(snapshot, newest, tag)| Mark {
        snapshot: Arc::new(snapshot),
        newest,
        tag: Tag(tag),
    })
}

fn any_cursor() -> impl Strategy<Value = Cursor> {
    let between = (any_mark(), any_mark(), 0i64..90).prop_map(|(mut from, to, sent)| {
        from.tag = Tag::default();
        let sent = sent.min(to.newest);
        Cursor::Between { from, to, sent }
    });
    prop_oneof![any_mark().prop_map(Cursor::At), between]
}

proptest! {
    #[test]
    fn every_cursor_round_trips(cursor in any_cursor()) {
        let text = cursor.to_text().expect("small");
        prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.~".contains(&b)), "{}", text);
        prop_assert_eq!(text.parse::<Cursor>(), Ok(cursor));
    }

    #[test]
    fn a_text_that_is_read_is_written_the_same(
        text in "1~[0-9]{1,2}(\\.[0-9]{1,2}){0,3}~[0-9]{1,2}(\\.[0-9a-f]{8}|~-?[0-9](\\.[1-9]){0,2}(_[0-9.]{0,4}){0,2}~[0-9]\\.[0-9]\\.[0-9a-f]{8})",
    ) {
        if let Ok(cursor) = text.parse::<Cursor>() {
            prop_assert_eq!(cursor.to_string(), text);
        }
    }

    #[test]
    fn no_text_panics(text in "[0-9a-f.~_-]{0,60}", any in ".{0,40}") {
        let _ = text.parse::<Cursor>();
        let _ = format!("1~{text}").parse::<Cursor>();
        let _ = any.parse::<Cursor>();
    }

    #[test]
    fn the_text_of_a_leg_is_the_text_of_its_cursors(from in any_mark(), to in any_mark(), sent in 0i64..90) {
        let leg = Leg::whole(from, to);
        let sent = sent.min(leg.to.newest);
        prop_assert_eq!(LegText::new(&leg).at(sent), leg.at(sent).to_text());
    }

    #[test]
    fn covers_promises_what_sees_says(cursor in any_cursor(), mark in any_mark()) {
        if cursor.covers(&mark) {
            for xid in 0..70 {
                for id in 0..95 {
                    prop_assert!(!mark.sees(xid, id) || cursor.sees(xid, id));
                }
            }
        }
    }

    #[test]
    fn who_is_behind_a_mark_has_seen_nothing_that_it_has_not(cursor in any_cursor(), mark in any_mark()) {
        if cursor.is_behind(&mark) {
            for xid in 0..70 {
                for id in 0..95 {
                    prop_assert!(!cursor.sees(xid, id) || mark.sees(xid, id));
                }
            }
        }
    }

    #[test]
    fn a_cursor_above_the_floor_has_seen_what_was_trimmed(
        cursor in any_cursor(), snapshot in any_snapshot(), xid in 0u64..60, id in 0i64..90,
    ) {
        let floor = Floor { snapshot, xid, id, tag: Tag(7) };
        if cursor.standing(&floor, Some(cursor.anchor().tag)) == Standing::Served {
            for trimmed in 0..=floor.xid {
                if floor.snapshot.sees(trimmed) {
                    prop_assert!(cursor.sees(trimmed, floor.id));
                }
            }
        }
    }

    /// Legs lead to the target without gap or repeat, each event's cursor resumes to the rest.
    #[test]
    fn legs_send_exactly_what_is_missing(
        events in proptest::collection::vec(1u64..40, 1..30),
        steps in proptest::collection::vec((any::<prop::sample::Index>(), 1u64..40), 2..5),
        cut in any::<prop::sample::Index>(),
    ) {
        // A history: transaction ids in the order of event ids, and marks that grow along it.
        let newest_of = |snapshot: &Snapshot| {
            let ids = events.iter().zip(1i64..);
            ids.filter(|(xid, _)| snapshot.sees(**xid)).map(|(_, id)| id).max().unwrap_or(0)
        };
        let mut marks: Vec<Mark> = Vec::new();
        for (index, xmax) in steps {
            let before = marks.last().map(|mark| mark.snapshot.clone());
            let xmax = xmax.max(before.as_ref().map_or(1, |snapshot| snapshot.xmax()));
            let open: Vec<u64> = (1..xmax)
                .filter(|xid| before.as_ref().is_none_or(|b| !b.sees(*xid)))
                .filter(|xid| (xid + index.index(7) as u64).is_multiple_of(3))
                .collect();
            let snapshot = Snapshot::new(xmax, open).expect("ascending");
            let newest = newest_of(&snapshot);
            marks.push(Mark { snapshot: Arc::new(snapshot), newest, tag: Tag(0) });
        }
        let target = Cursor::At(marks.last().expect("two or more").clone());
        let mut cursor = Cursor::At(marks[0].clone());
        let mut got: Vec<i64> = Vec::new();
        // Replay to each mark in turn; in the middle of one, cut and resume.
        for mark in &marks[1..] {
            let to = Cursor::At(mark.clone());
            let mut left = cut.index(6);
            for leg in cursor.legs(&to) {
                let sent: Vec<i64> = events.iter().zip(1i64..)
                    .filter(|(xid, id)| leg.takes(**xid, *id)).map(|(_, id)| id).collect();
                for id in sent {
                    got.push(id);
                    cursor = leg.at(id);
                    if left == 0 { break }
                    left -= 1;
                }
                if left == 0 { break }
                cursor = leg.end();
            }
        }
        for leg in cursor.legs(&target) {
            got.extend(events.iter().zip(1i64..)
                .filter(|(xid, id)| leg.takes(**xid, *id)).map(|(_, id)| id));
        }
        let mut sorted = got.clone();
        sorted.sort_unstable();
        sorted.dedup();
        prop_assert_eq!(sorted.len(), got.len(), "an event came twice: {:?}", got);
        let missing: Vec<i64> = events.iter().zip(1i64..)
            .filter(|(xid, id)| target.sees(**xid, *id) && !marks[0].sees(**xid, *id))
            .map(|(_, id)| id).collect();
        prop_assert_eq!(sorted, missing);
    }
}

#[test]
fn the_text_of_the_design_is_read() {
    let cursor: Cursor = "1~7701234.3.1~4711.9af3c2d1".parse().expect("reads");
    let Cursor::At(mark) = &cursor else {
        panic!("one mark");
    };
    assert_eq!(mark.snapshot.to_string(), "7701234:7701237:7701234,7701235");
    assert_eq!((mark.newest, mark.tag), (4711, Tag(0x9af3_c2d1)));
    assert_eq!(cursor.to_string(), "1~7701234.3.1~4711.9af3c2d1");
}

#[test]
fn a_text_beyond_the_limit_is_not_written() {
    let wide = (1..3000).map(|n| n * 100).collect();
    let snapshot = Arc::new(Snapshot::new(1_000_000, wide).expect("ascends"));
    let mark = Mark {
        snapshot,
        newest: 1,
        tag: Tag(1),
    };
    assert_eq!(Cursor::At(mark).to_text(), None);
    let long = format!("1~5{}~1.00000000", ".1".repeat(3000));
    assert_eq!(long.parse::<Cursor>(), Err(CursorError));
}

#[test]
fn a_changed_anchor_has_diverged_and_a_lost_one_is_told_from_a_trimmed_one() {
    let cursor: Cursor = "1~100~10.00000001".parse().expect("reads");
    let floor = |id, xid, tag| Floor {
        snapshot: Snapshot::new(90, vec![]).expect("plain"),
        xid,
        id,
        tag: Tag(tag),
    };
    let none = floor(0, 0, 0);
    assert_eq!(cursor.standing(&none, Some(Tag(1))), Standing::Served);
    assert_eq!(cursor.standing(&none, Some(Tag(2))), Standing::Diverged);
    assert_eq!(cursor.standing(&none, None), Standing::Diverged);
    assert_eq!(cursor.standing(&floor(10, 80, 1), None), Standing::Served);
    assert_eq!(cursor.standing(&floor(10, 80, 2), None), Standing::Diverged);
    assert_eq!(cursor.standing(&floor(11, 80, 2), None), Standing::Trimmed);
}

#[test]
fn a_transaction_that_postgres_never_has_is_no_part_of_a_cursor() {
    for text in [
        "1~4294967296~1.00000000",
        "1~4294967293.3~1.00000000",
        "1~4294967293.9.3~1.00000000",
        "1~4294967293.2~5~1~10.10.00000000",
    ] {
        assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text}");
    }
}
