use super::*;
use crate::tls::fixtures::{Directory, relink};

/// So late that nothing that is there now may still change without a trace.
fn later() -> SystemTime {
    SystemTime::now() + 2 * SETTLING
}

#[test]
fn a_look_sees_each_change_once() {
    let directory = Directory::new();
    let paths = vec![directory.write("a", "1"), directory.path("b")];
    let (mut watched, contents) = Watched::new(paths);
    assert!(matches!(contents, Err(FileError::Missing(_))));
    let mut look = || watched.look().map(|contents| contents.map_err(|error| error.to_string()));
    assert_eq!(look(), None, "it is missing as before");
    directory.write("b", "2");
    assert_eq!(look(), Some(Ok(vec![b"1".to_vec(), b"2".to_vec()])));
    assert_eq!(look(), None);
    directory.write("a", "1");
    assert_eq!(look(), None, "written, and the same");
    directory.write("a", "3");
    assert_eq!(look(), Some(Ok(vec![b"3".to_vec(), b"2".to_vec()])), "the same size, perhaps at the same time");
    std::fs::remove_file(directory.path("a")).expect("it is there");
    assert!(matches!(look(), Some(Err(error)) if error.ends_with("a: no such file")));
    assert_eq!(look(), None);
}

#[test]
fn settled_files_are_read_again_only_when_they_are_others() {
    let directory = Directory::new();
    for (name, contents) in [("1", "one"), ("2", "two")] {
        std::fs::create_dir(directory.path(name)).expect("a directory");
        directory.write(&format!("{name}/file"), contents);
    }
    relink(&directory, "data", "1");
    relink(&directory, "file", "data/file");
    let (mut watched, _) = Watched::new(vec![directory.path("file")]);
    assert!(watched.look_at(SystemTime::UNIX_EPOCH).is_none() && !watched.settled, "it is too new");
    assert!(watched.look_at(later()).is_none() && watched.settled);
    watched.digest = [0; 32];
    assert!(watched.look_at(later()).is_none(), "it is not read");
    relink(&directory, "data", "2");
    assert_eq!(watched.look_at(later()).expect("another file").expect("readable"), [b"two".to_vec()]);
    // A tool that sets the time of what it writes can't set the time of the change.
    let metadata = || directory.path("2/file").metadata().expect("it is there");
    let (modified, changed) = (metadata().modified().expect("a time"), (metadata().ctime(), metadata().ctime_nsec()));
    while (metadata().ctime(), metadata().ctime_nsec()) == changed {
        directory.write("2/file", "TWO");
        let file = std::fs::File::options().write(true).open(directory.path("2/file")).expect("it is there");
        file.set_modified(modified).expect("ours");
    }
    assert!(watched.settled);
    assert_eq!(watched.look_at(later()).expect("other contents").expect("readable"), [b"TWO".to_vec()]);
}
