//! Files and rows with other bytes than were written.

use super::*;

/// Opens a database with other bytes. It must refuse, or hold what it held.
fn damaged(bytes: Vec<u8>, seal: &Option<Vec<u8>>, expected: &Contents) -> bool {
    let medium = TestMedium { disk: FaultyDisk::with(bytes.clone()), seal: Arc::new(Mutex::new(seal.clone())) };
    match contents(&medium) {
        Ok(found) => {
            assert_eq!(&found, expected, "damage was served as good");
            false
        }
        Err(_) => {
            assert_eq!(medium.disk.bytes(), bytes, "a start that refuses changes nothing");
            true
        }
    }
}

fn small_database() -> (Vec<u8>, Option<Vec<u8>>, Contents) {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    let mut expected = Contents::new();
    let mut dice = Dice::new(11);
    for n in 1..60u64 {
        let keys = [
            Key::Session(n % 4),
            Key::Subscription(n % 4, format!("filter/{n}").into()),
            Key::Delivery(n % 4, n),
            Key::Retained(format!("topic/{n}").into()),
        ];
        for key in keys {
            let step = Step::Put(key, (dice.roll() % 40) as u8);
            submit(&store, std::slice::from_ref(&step));
            apply(&mut expected, &step);
        }
        if n % 10 == 0 {
            until_durable(&store, store.delete(Key::Retained("none".into())));
        }
    }
    assert!(store.close());
    let seal = medium.seal.lock().clone();
    (medium.disk.bytes(), seal, expected)
}

#[test]
fn a_flipped_bit_is_found_or_harmless_wherever_it_is() {
    let (bytes, seal, expected) = small_database();
    assert!(!damaged(bytes.clone(), &seal, &expected), "{} bytes without damage", bytes.len());
    // Everything in the first page, which says where all else is, and steps that are no multiple of any field beyond.
    let offsets = (0..512).chain((512..bytes.len()).step_by(499));
    let mut refused = 0;
    let mut tried = 0;
    for offset in offsets {
        let mut bad = bytes.clone();
        bad[offset] ^= 1 << (offset % 8);
        refused += usize::from(damaged(bad, &seal, &expected));
        tried += 1;
    }
    // Pages that are not in use may hold anything.
    assert!(refused * 10 > tried, "{refused} of {tried} were refused");
}

#[test]
fn a_truncated_file_is_refused_wherever_it_ends() {
    let (bytes, seal, expected) = small_database();
    for len in (0..bytes.len()).step_by(509) {
        assert!(damaged(bytes[..len].to_vec(), &seal, &expected), "cut to {len} of {}", bytes.len());
    }
}

#[test]
fn a_seal_that_is_damaged_is_none_and_hides_nothing() {
    let (bytes, seal, expected) = small_database();
    let seal = seal.unwrap();
    for at in 0..seal.len() {
        let mut flipped = seal.clone();
        // Not the bit that makes a letter capital: the number that it belongs to stays the same.
        flipped[at] ^= 1 << (at % 5);
        for bad in [flipped, seal[..at].to_vec()] {
            let medium = TestMedium { disk: FaultyDisk::with(bytes.clone()), seal: Arc::new(Mutex::new(Some(bad))) };
            let (disk, recovery, _) = load::load(&medium, &ALWAYS, WallClock::default(), |_| {}).unwrap();
            assert!(!recovery.clean, "byte {at}");
            drop(disk);
            assert_eq!(contents(&medium).unwrap(), expected);
        }
    }
}

#[test]
fn a_file_from_before_the_last_shutdown_is_refused() {
    let medium = TestMedium::default();
    let (store, _) = open(&medium, ALWAYS).unwrap();
    until_durable(&store, store.put(Key::Retained("t".into()), Row::Retained(message("old".into()))));
    assert!(store.close());
    let old = medium.disk.bytes();
    drop(store);
    let (store, recovery) = open(&medium, ALWAYS).unwrap();
    assert!(recovery.clean);
    until_durable(&store, store.put(Key::Retained("t".into()), Row::Retained(message("new".into()))));
    assert!(store.close());
    let mixed = TestMedium { disk: FaultyDisk::with(old), seal: Arc::clone(&medium.seal) };
    let error = open(&mixed, ALWAYS).unwrap_err().to_string();
    assert!(error.contains("the last orderly shutdown left"), "{error}");
}

#[test]
fn a_row_that_changed_behind_the_databases_back_is_found_when_it_is_read() {
    let key = Key::Delivery(1, 1);
    let mut value = bytes::BytesMut::new();
    delivery("payload".into()).encode(Table::Deliveries, &key.to_bytes(), WallClock::default(), &mut value);
    assert!(Row::decode(&key, &key.to_bytes(), &value, WallClock::default()).is_ok());
    for at in 0..value.len() {
        let mut bad = value.clone();
        bad[at] ^= 0x10;
        assert_eq!(Row::decode(&key, &key.to_bytes(), &bad, WallClock::default()).unwrap_err(), RowError::Checksum);
    }
    // A row that stands under another key is as bad.
    let other = Key::Delivery(1, 2);
    assert_eq!(Row::decode(&other, &other.to_bytes(), &value, WallClock::default()).unwrap_err(), RowError::Checksum);
}

#[test]
fn what_can_be_read_of_a_damaged_file_is_saved_in_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let (bytes, seal, expected) = small_database();
    let directory = Directory::open(dir.path()).unwrap();
    std::fs::write(directory.database(), &bytes).unwrap();
    directory.set_seal(seal.as_deref()).unwrap();
    let found = check(&directory).unwrap();
    assert!(found.is_good(), "{found:?}");
    assert_eq!(found.rows.iter().sum::<u64>(), expected.len() as u64);
    // A key, wherever a page holds it: its row is lost.
    let mut bad = bytes.clone();
    for at in (0..bytes.len() - 9).filter(|at| &bytes[*at..at + 9] == b"filter/33") {
        bad[at] ^= 1;
    }
    std::fs::write(directory.database(), &bad).unwrap();
    let error = Store::open(Arc::new(directory), ALWAYS, WallClock::default(), Arc::default(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("store.redb") && error.to_string().contains("store recover"), "{error}");
    let directory = Directory::open(dir.path()).unwrap();
    assert!(!check(&directory).unwrap().is_good());
    let to = tempfile::tempdir().unwrap();
    let found = recover(&directory, to.path()).unwrap();
    assert!(!found.is_good());
    assert!(recover(&directory, to.path()).is_err(), "a store is not written over");
    assert_eq!(std::fs::read(directory.database()).unwrap(), bad);
    let mut saved = Contents::new();
    let recovered = Directory::open(to.path()).unwrap();
    let (disk, ..) = load::load(&recovered, &ALWAYS, WallClock::default(), |_| {}).unwrap();
    for table in Table::ALL {
        disk.for_each(table, |key, row| saved.insert(key, shown(&row)).is_none()).unwrap();
    }
    assert!(saved.len() + 40 > expected.len() && saved.len() < expected.len(), "{} of {}", saved.len(), expected.len());
    assert!(saved.iter().all(|(key, row)| expected.get(key) == Some(row)));
}

#[test]
fn a_file_of_an_older_format_is_read_and_raised_and_others_are_refused_by_number() {
    let (bytes, seal, expected) = small_database();
    let of_format = |format| {
        let medium = TestMedium { disk: FaultyDisk::with(bytes.clone()), seal: Arc::new(Mutex::new(seal.clone())) };
        let disk = Disk::open(Box::new(medium.disk.open()), 1 << 20, WallClock::default(), false, |_| {}).unwrap();
        disk.make_format(format, Table::Delayed);
        disk.close().unwrap();
        medium
    };
    let old = of_format(1);
    // Whoever only looks raises nothing.
    let dir = tempfile::tempdir().unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    std::fs::write(directory.database(), old.disk.bytes()).unwrap();
    directory.set_seal(seal.as_deref()).unwrap();
    let found = check(&directory).unwrap();
    assert!(found.is_good() && found.rows.iter().sum::<u64>() == expected.len() as u64, "{found:?}");
    assert_eq!(std::fs::read(directory.database()).unwrap(), old.disk.bytes());
    assert_eq!(contents(&old).unwrap(), expected);
    let (disk, ..) = load::load(&old, &ALWAYS, WallClock::default(), |_| {}).unwrap();
    assert_eq!(disk.format(), Some(2));
    for (format, word) in [(0, "another version"), (3, "a newer version")] {
        let medium = of_format(format);
        let before = medium.disk.bytes();
        let error = open(&medium, ALWAYS).unwrap_err().to_string();
        let words = [&format!("of format {format}"), word, "reads formats 1 to 2"];
        assert!(words.iter().all(|word| error.contains(*word)), "{error}");
        assert_eq!(medium.disk.bytes(), before, "a start that refuses changes nothing");
    }
}
