use super::*;

fn digest(byte: u8) -> Option<FileDigest> {
    Some([byte; 32])
}

#[test]
fn a_change_counts_when_it_has_settled() {
    let mut settling = Settling::new(digest(1));
    let looks = [
        (digest(1), Look::Same),
        (digest(2), Look::Same),
        (digest(3), Look::Same),
        (digest(3), Look::Changed),
        (digest(3), Look::Same),
        // Gone and back, as it was.
        (None, Look::Same),
        (digest(3), Look::Same),
        // Half written, gone, then the same half again: not twice in a row.
        (digest(4), Look::Same),
        (None, Look::Same),
        (digest(4), Look::Same),
        (digest(4), Look::Changed),
        // There and back within two looks.
        (digest(5), Look::Same),
        (digest(4), Look::Same),
        (digest(5), Look::Same),
        (digest(5), Look::Changed),
    ];
    for (at, (now, want)) in looks.into_iter().enumerate() {
        assert_eq!(settling.look(now), want, "look {at}");
    }
}

/// A directory of this test's own.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("smg-watch-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::test(start_paused = true)]
async fn changes_and_hangups_are_seen() {
    // One test for both: a signal goes to every watch of the process.
    let directory = Directory::new("changes");
    let path = directory.0.join("config.yaml");
    let write = |name: &str, text: &str| std::fs::write(directory.0.join(name), text).expect("a file");
    let link = |target: &str| {
        let _ = std::fs::remove_file(directory.0.join("new"));
        std::os::unix::fs::symlink(target, directory.0.join("new")).expect("a link");
        std::fs::rename(directory.0.join("new"), &path).expect("a rename");
    };
    write("config.yaml", "port: 1");
    let mut watch = Watch::new(Some((path.clone(), file::digest(b"port: 1")))).expect("signals");

    write("other", "port: 2");
    std::fs::rename(directory.0.join("other"), &path).expect("a rename");
    assert_eq!(watch.changed().await, Cause::File);
    write("third", "port: 3");
    link("third");
    assert_eq!(watch.changed().await, Cause::File);
    let mut idle = async || {
        let caused = tokio::time::timeout(Duration::from_secs(60), watch.changed()).await;
        assert!(caused.is_err(), "{caused:?}");
    };
    std::fs::remove_file(&path).expect("it is there");
    idle().await;
    write("config.yaml", "");
    idle().await;
    write("config.yaml", "port: 4");
    assert_eq!(watch.changed().await, Cause::File);

    write("config.yaml", "port: 5");
    watch.loaded(file::digest(b"port: 5"));
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP).expect("a signal");
    assert_eq!(watch.changed().await, Cause::Hangup);
}
