use std::io::{self, Write};
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_local;

use super::*;
use crate::gateway::metrics::{CountedConnection, HttpMetrics};

#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("whole").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Notes panics of this thread; those of other tests are theirs.
fn note_ours() {
    let (ours, before) = (thread::current().id(), panic::take_hook());
    panic::set_hook(Box::new(move |panic| {
        if thread::current().id() == ours {
            note(panic);
        }
        before(panic);
    }));
}

fn counted() -> u64 {
    let mut exposition = Exposition::default();
    expose(&mut exposition);
    let text = exposition.render();
    let line = text.lines().find_map(|line| line.strip_prefix("smg_panics_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("no count in {text}"))
}

/// Runs `work` as a shard runs its own, and what the log says of it.
fn on_a_shard(work: impl Future<Output = ()>) -> String {
    let kept = Kept::default();
    let writer = kept.clone();
    let log = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    tracing::subscriber::with_default(log, || runtime.expect("a runtime").block_on(work));
    let text = kept.0.lock().expect("whole").clone();
    String::from_utf8(text).expect("UTF-8")
}

// Case 68, and what becomes of vital tasks: one test, because what it is about is the process's.
#[test]
fn a_panic_ends_its_own_task_and_is_counted_and_one_line_unless_it_is_vital() {
    note_ours();
    let metrics = Arc::<HttpMetrics>::default();
    let log = on_a_shard(async {
        let (go_on, may_go_on) = oneshot::channel::<()>();
        let shared = Rc::new("shared");
        let (of_one, of_other) = (CountedConnection::new(&metrics), CountedConnection::new(&metrics));
        let (text, kept) = ("\n\u{1b}[31mforged".to_owned(), shared.clone());
        let other = spawn_local(async move {
            let _counted = of_other;
            may_go_on.await.expect("the sender lives");
            *kept
        });
        let one = spawn_local(async move {
            let _counted = of_one;
            tokio::task::yield_now().await;
            panic!("{text}");
        });
        assert!(one.await.is_err_and(|error| error.is_panic()));
        assert_eq!((counted(), metrics.connections.load(Relaxed)), (1, 1));
        go_on.send(()).expect("the other connection lives");
        assert_eq!(other.await.expect("it does not panic"), *shared);
        assert_eq!(metrics.connections.load(Relaxed), 0);
        assert!(tokio::time::timeout(Duration::from_millis(50), fatal()).await.is_err());

        spawn_local(vital(async { tokio::time::sleep(Duration::from_millis(1)).await })).await.expect("no panic");
        let aborted = spawn_local(vital(std::future::pending::<()>()));
        tokio::task::yield_now().await;
        aborted.abort();
        assert!(aborted.await.is_err_and(|error| error.is_cancelled()));
        assert!(tokio::time::timeout(Duration::from_millis(50), fatal()).await.is_err(), "an end is no panic");

        spawn_local(vital(async { panic!("the sweeper is no more") }));
        tokio::time::timeout(Duration::from_secs(5), fatal()).await.expect("somebody is told");
        assert_eq!(counted(), 2);
    });
    // Whoever runs the tests may have asked for backtraces.
    let lines: Vec<_> = log.lines().filter(|line| line.contains("a panic")).collect();
    assert_eq!(lines.len(), 2, "{log}");
    for said in ["ERROR", "a panic", "src/panics/tests.rs:", "\\u{a}\\u{1b}[31mforged"] {
        assert!(lines[0].contains(said), "{said:?} in {log}");
    }
    assert!(lines[1].contains("the sweeper is no more"), "{log}");
}
