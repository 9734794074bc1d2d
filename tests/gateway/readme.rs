//! The README's commands, in its order, with this build in the place of the one that they make: a reader who pastes them
//! gets what the text says.

use crate::support::{BUSY, Client, Files, eventually, executable};
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

/// A block of shell commands.
struct Block {
    text: String,
    kind: Kind,
}

#[derive(PartialEq)]
enum Kind {
    Ends,
    /// `<!-- runs until Ctrl-C -->` stands before it.
    RunsOn,
    /// `<!-- not run by the tests: WHY -->` stands before it.
    NotRun(String),
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(repository().join("README.md")).expect("there is one")
}

fn blocks(text: &str) -> Vec<Block> {
    let (mut blocks, mut lines, mut before) = (Vec::new(), text.lines(), "");
    while let Some(line) = lines.next() {
        if line == "```sh" {
            let text: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            let comment = before.strip_prefix("<!-- ").and_then(|rest| rest.strip_suffix(" -->")).unwrap_or_default();
            let kind = match comment.strip_prefix("not run by the tests: ") {
                Some(why) => Kind::NotRun(why.to_owned()),
                None if comment == "runs until Ctrl-C" => Kind::RunsOn,
                None => Kind::Ends,
            };
            blocks.push(Block { text: text.join("\n"), kind });
        }
        before = line;
    }
    blocks
}

/// What looks like a fresh clone in which `cargo` has built this executable.
struct Checkout {
    files: Files,
    /// Ports of the README, and those that stand for them.
    ports: Vec<(&'static str, u16)>,
}

impl Checkout {
    fn new() -> Self {
        let (files, ports) = (Files::new(), free_ports(&["3000", "8000", "8001"]));
        let built = PathBuf::from(executable().get_program());
        for directory in ["target/release", "bin"] {
            fs::create_dir_all(files.path(directory)).expect("the directory can be written");
        }
        symlink(repository().join("guests"), files.path("guests")).expect("the directory can be written");
        symlink(&built, files.path("target/release/smg")).expect("the directory can be written");
        let cargo = format!(
            "#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || exit 101\nshift 3\n\
             [ \"$1\" = demo ] && set -- \"$@\" --port={}\nexec '{}' \"$@\"\n",
            ports[0].1,
            built.display()
        );
        files.write("bin/cargo", cargo);
        fs::set_permissions(files.path("bin/cargo"), fs::Permissions::from_mode(0o755)).expect("the file is ours");
        Self { files, ports }
    }

    fn gateway(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.ports[0].1).into()
    }

    fn is_ready(&self) -> bool {
        let Ok(mut client) = Client::try_connect(self.gateway()) else { return false };
        client.get("/readiness").status == 200
    }

    /// Runs commands in a shell and a process group of their own; what they print is in the file `NAME.out`.
    fn start(&self, name: &str, commands: &str) -> Group {
        let ported = |text: String, (port, ours): &(&str, u16)| text.replace(port, &ours.to_string());
        let commands = self.ports.iter().fold(commands.to_owned(), ported);
        let mut shell = Command::new("sh");
        for (name, _) in executable().get_envs() {
            shell.env_remove(name);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        shell
            .env("PATH", format!("{}:{path}", self.files.named("bin")))
            .env("SMG_HOST", "127.0.0.1")
            .env("no_proxy", "*");
        let out = File::create(self.files.path(&format!("{name}.out"))).expect("the directory can be written");
        let err = out.try_clone().expect("descriptors are left");
        shell.current_dir(self.files.root()).args(["-e", "-c", &commands]).process_group(0);
        let child = shell.stdin(Stdio::null()).stdout(out).stderr(err).spawn().expect("there is a shell");
        Group(child)
    }

    fn printed(&self, name: &str) -> String {
        let bytes = fs::read(self.files.path(&format!("{name}.out"))).expect("it is there");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Runs commands to their end, which must be a good one; what they left running, and what they printed.
    #[track_caller]
    fn run(&self, name: &str, commands: &str) -> (Group, String) {
        let mut group = self.start(name, commands);
        let status = group.wait();
        let printed = self.printed(name);
        assert!(status.success(), "{status} after\n{commands}\n{printed}");
        (group, printed)
    }
}

/// A shell and what it has started; all of it ends when it is dropped.
struct Group(Child);

impl Group {
    /// Waits for the shell, not for what it has left running.
    #[track_caller]
    fn wait(&mut self) -> ExitStatus {
        let mut status = None;
        eventually(BUSY, || {
            status = self.0.try_wait().expect("our own child can be waited for");
            status.is_some()
        });
        status.expect("the loop above ended with it")
    }

    fn signal(&self, signal: Signal) {
        // It may be gone already.
        let _ = kill_process_group(Pid::from_child(&self.0), signal);
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Ports that the system gives to nobody who asks for any: other tests run meanwhile.
fn free_ports<'n>(names: &[&'n str]) -> Vec<(&'n str, u16)> {
    let first = 20_000 + u16::try_from(std::process::id() % 1_000).expect("less than a thousand") * 10;
    // One that holds another's digits would be put in its place, too.
    let is_apart = |port: &u16| names.iter().all(|name| !port.to_string().contains(name));
    let is_free = |port: &u16| is_apart(port) && TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let ports: Vec<_> = names.iter().copied().zip((first..32_000).filter(is_free)).collect();
    assert_eq!(ports.len(), names.len(), "a port is free");
    ports
}

/// What `smg demo` says that one may try: each command, and the status that it says follows.
fn tries(demo: &str) -> Vec<(String, Option<String>)> {
    let mut tries: Vec<(String, Option<String>)> = Vec::new();
    for line in demo.lines().skip_while(|line| *line != "Try:") {
        match line.strip_prefix("  ").map(str::trim_start) {
            Some(command) if command.starts_with("curl ") => tries.push((command.to_owned(), None)),
            Some(rest) => {
                let Some((command, status)) = tries.last_mut() else { continue };
                match (command.strip_suffix('\\'), rest.split_once(": ")) {
                    (Some(begun), _) => *command = format!("{begun}{rest}"),
                    (None, Some((code, _))) if code.parse::<u16>().is_ok() => *status = Some(code.to_owned()),
                    _ => {}
                }
            }
            None => {}
        }
    }
    tries
}

#[test]
fn every_command_does_what_the_text_says() {
    let checkout = Checkout::new();
    let (mut running, mut printed) = (Vec::new(), String::new());
    for (number, block) in blocks(&readme()).iter().enumerate() {
        let name = format!("block-{number}");
        match &block.kind {
            Kind::NotRun(why) => assert!(why.len() > 10, "a reason is needed: {}", block.text),
            Kind::RunsOn => {
                let mut group = checkout.start(&name, &block.text);
                eventually(BUSY, || checkout.printed(&name).contains("Ctrl-C stops it"));
                for (at, (command, status)) in tries(&checkout.printed(&name)).iter().enumerate() {
                    let (_, answer) = checkout.run(&format!("try-{at}"), command);
                    let first = answer.lines().find(|line| line.starts_with("HTTP/1.1 ")).unwrap_or_default();
                    let wanted = status.as_deref().unwrap_or_default();
                    assert!(first.contains(wanted) && !answer.is_empty(), "{command}: no {wanted} in {answer}");
                }
                group.signal(Signal::INT);
                group.wait();
                assert!(checkout.printed(&name).ends_with("stopping\n"), "{}", checkout.printed(&name));
            }
            Kind::Ends => {
                let (group, said) = checkout.run(&name, &block.text);
                printed += &said;
                if block.text.ends_with('&') {
                    eventually(BUSY, || checkout.is_ready());
                    running.push(group);
                }
            }
        }
    }
    assert!(printed.contains("\"Success\""), "the module is deployed: {printed}");
    let statuses: Vec<_> = printed.lines().filter_map(|line| line.strip_prefix("HTTP/1.1 ")?.get(..3)).collect();
    assert_eq!(statuses, ["401", "200"], "{printed}");
}

#[test]
fn all_commands_are_in_blocks_that_are_run_and_few_are_not() {
    let text = readme();
    let blocks = blocks(&text);
    assert!(blocks.len() > 5, "{}", blocks.len());
    let not_run = blocks.iter().filter(|block| matches!(block.kind, Kind::NotRun(_))).count();
    assert!(not_run <= 2, "{not_run} are not run");
    let commands = ["curl ", "cargo ", "smg ", "./", "bash ", "python3 ", "docker ", "just"];
    for line in text.lines().filter_map(|line| line.strip_prefix("    ")) {
        let is_command = commands.iter().any(|command| line.starts_with(command));
        let is_in_block = blocks.iter().any(|block| block.text.contains(line));
        assert!(!is_command || is_in_block, "{line:?} is in no block that begins with ```sh");
    }
}

/// Words of the README and `docs/` that stand for a script: what is printed as a command can be run as one.
#[test]
fn scripts_that_are_named_are_there_and_can_be_run() {
    let docs = fs::read_dir(repository().join("docs")).expect("they are there");
    let docs = docs.map(|file| fs::read_to_string(file.expect("a file").path()).expect("text"));
    let texts: Vec<String> = docs.chain([readme()]).collect();
    let mut seen = 0;
    for code in texts.iter().flat_map(|text| text.split('`').skip(1).step_by(2)) {
        let words: Vec<_> = code.split_whitespace().collect();
        let is_script = |word: &str| [".py", ".sh"].iter().any(|suffix| word.ends_with(suffix)) && word.contains('/');
        let Some(at) = words.iter().position(|word| is_script(word)) else { continue };
        let path = repository().join(words[at]);
        let Ok(metadata) = fs::metadata(&path) else { panic!("`{code}` names {}, which is not there", words[at]) };
        let is_executable = metadata.permissions().mode() & 0o111 != 0;
        assert!(at > 0 || is_executable || words[at].starts_with("guests/"), "`{code}` can't be run as it is printed");
        seen += 1;
    }
    assert!(seen > 3, "{seen}");
}
