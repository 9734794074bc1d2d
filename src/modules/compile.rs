//! Compiling a module, in a process of its own.
//!
//! Nothing bounds the time and memory that a compiler takes for a hostile module, so it runs where it can be
//! ended: a child process of the same executable, with limits of its own and a low priority. The artefact
//! comes back through a pipe; nothing that was compiled elsewhere is ever loaded.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use super::abi::Abi;
use super::engine::Tuning;

/// Longest time for one module, on the clock and on the processor.
const MAX_TIME: Duration = Duration::from_secs(30);
const MAX_CPU_SECONDS: u64 = 60;
/// Most memory of the compiling process.
const MAX_MEMORY: u64 = 1 << 30;
/// Largest artefact that is taken.
const MAX_ARTEFACT: u64 = 512 << 20;
/// How much of an error is passed on.
const MAX_ERROR: u64 = 4096;

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("not valid WebAssembly: {0}")]
    Refused(String),
    #[error("compiling the module took longer than {} s", MAX_TIME.as_secs())]
    Timeout,
    #[error("compiling the module was ended: it needs more than {} MiB of memory or {MAX_CPU_SECONDS} s of processor time", MAX_MEMORY >> 20)]
    Ended,
    #[error("compiled, it is larger than {} MiB", MAX_ARTEFACT >> 20)]
    ArtefactTooLarge,
    #[error("the compiler can't be run")]
    Run(#[source] io::Error),
}

/// Arguments of the compiling process.
#[derive(Debug, clap::Args)]
pub struct CompileArgs {
    #[command(flatten)]
    tuning: Tuning,
}

/// Compiles modules for one engine.
#[derive(Debug, Clone)]
pub struct Compiler {
    executable: PathBuf,
    tuning: Tuning,
}

impl Compiler {
    /// `executable` is a `smg` of this very build.
    pub fn new(executable: PathBuf, tuning: Tuning) -> Self {
        Self { executable, tuning }
    }

    /// The artefact for a WebAssembly component or core module.
    pub async fn compile(&self, wasm: Vec<u8>) -> Result<Vec<u8>, CompileError> {
        let mut child = Command::new(&self.executable)
            .arg("compile")
            .args(self.tuning.arguments())
            .env_clear()
            .env("RAYON_NUM_THREADS", "4")
            // The allocator's own reservations, in KiB, must not use up the limit.
            .env("MIMALLOC_ARENA_RESERVE", "65536")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(CompileError::Run)?;
        match tokio::time::timeout(MAX_TIME, converse(&mut child, wasm)).await {
            Ok(done) => done,
            Err(_) => Err(CompileError::Timeout),
        }
    }
}

async fn converse(child: &mut Child, wasm: Vec<u8>) -> Result<Vec<u8>, CompileError> {
    let mut stdin = child.stdin.take().expect("stdin is piped");
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let (mut artefact, mut errors) = (Vec::new(), Vec::new());
    let feed = async move {
        // A child that is ended early closes its end; its exit status says why.
        let _ = stdin.write_all(&wasm).await;
    };
    let mut stdout = stdout.take(MAX_ARTEFACT);
    let complain = async {
        let mut stderr = stderr.take(MAX_ERROR);
        stderr.read_to_end(&mut errors).await?;
        // The rest of a long complaint must not block the child.
        tokio::io::copy(&mut stderr.into_inner(), &mut tokio::io::sink()).await
    };
    let (_, artefact_read, errors_read) = tokio::join!(feed, stdout.read_to_end(&mut artefact), complain);
    artefact_read.map_err(CompileError::Run)?;
    errors_read.map_err(CompileError::Run)?;
    if artefact.len() as u64 >= MAX_ARTEFACT {
        return Err(CompileError::ArtefactTooLarge);
    }
    let status = child.wait().await.map_err(CompileError::Run)?;
    match status.code() {
        Some(0) => Ok(artefact),
        Some(1) => Err(CompileError::Refused(String::from_utf8_lossy(&errors).trim().to_owned())),
        _ => Err(CompileError::Ended),
    }
}

/// The compiling process: module on standard input, artefact on standard output, what is wrong with the
/// module on standard error and exit code 1.
pub fn compile_process(args: &CompileArgs) -> ExitCode {
    // Ends with the gateway that wants the artefact, however that ends.
    let limited = rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .and_then(|()| limit(Resource::Cpu, MAX_CPU_SECONDS))
        .and_then(|()| limit(Resource::Data, MAX_MEMORY))
        .and_then(|()| limit(Resource::Core, 0))
        .and_then(|()| rustix::process::nice(10).map(drop));
    if let Err(error) = limited {
        eprintln!("the limits can't be set: {error}");
        return ExitCode::from(2);
    }
    match compile(args) {
        Ok(artefact) if io::stdout().lock().write_all(&artefact).is_ok() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(2),
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

fn limit(resource: Resource, most: u64) -> rustix::io::Result<()> {
    setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) })
}

fn compile(args: &CompileArgs) -> wasmtime::Result<Vec<u8>> {
    let mut wasm = Vec::new();
    io::stdin().lock().read_to_end(&mut wasm)?;
    let engine = wasmtime::Engine::new(&args.tuning.config())?;
    Abi::of(&wasm)?.precompile(&engine, &wasm)
}
