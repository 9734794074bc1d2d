//! What a core module may import: WASI preview 1, which denies all but clocks, random numbers and a place to
//! print to, and the `abort` of AssemblyScript.
//!
//! Compilers link far more of WASI than a module calls, so all of preview 1 is there to be linked; what is
//! denied answers with an error that the module can handle. Each host call has a bounded cost: the shard's
//! other work waits for it.

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Caller, Engine, Error, Extern, FuncType, Linker, Memory, Result, Trap, Val, ValType};
use wasmtime_wasi::I32Exit;

use crate::modules::host::{HostState, MAX_RANDOM};

const WASI: &str = "wasi_snapshot_preview1";

/// Error numbers of preview 1.
const SUCCESS: i32 = 0;
const BADF: i32 = 8;
const FAULT: i32 = 21;
const INVAL: i32 = 28;
const NOTSOCK: i32 = 57;
const NOTSUP: i32 = 58;
const SPIPE: i32 = 70;
const NOTCAPABLE: i32 = 76;

/// Pieces of one write.
const MAX_PIECES: u32 = 1024;
/// UTF-16 units of an abort's message that are shown.
const MAX_MESSAGE: usize = 256;

/// What is denied: the parameters (`i` for i32, `I` for i64) and the error that it answers with.
const DENIED: [(&str, &str, i32); 32] = [
    ("fd_advise", "iIIi", BADF),
    ("fd_allocate", "iII", BADF),
    ("fd_datasync", "i", BADF),
    ("fd_fdstat_set_flags", "ii", BADF),
    ("fd_fdstat_set_rights", "iII", BADF),
    ("fd_filestat_get", "ii", BADF),
    ("fd_filestat_set_size", "iI", BADF),
    ("fd_filestat_set_times", "iIIi", BADF),
    ("fd_pread", "iiiIi", BADF),
    ("fd_prestat_dir_name", "iii", BADF),
    ("fd_prestat_get", "ii", BADF),
    ("fd_pwrite", "iiiIi", BADF),
    ("fd_readdir", "iiiIi", BADF),
    ("fd_renumber", "ii", BADF),
    ("fd_sync", "i", BADF),
    ("fd_tell", "ii", BADF),
    ("path_create_directory", "iii", NOTCAPABLE),
    ("path_filestat_get", "iiiii", NOTCAPABLE),
    ("path_filestat_set_times", "iiiiIIi", NOTCAPABLE),
    ("path_link", "iiiiiii", NOTCAPABLE),
    ("path_open", "iiiiiIIii", NOTCAPABLE),
    ("path_readlink", "iiiiii", NOTCAPABLE),
    ("path_remove_directory", "iii", NOTCAPABLE),
    ("path_rename", "iiiiii", NOTCAPABLE),
    ("path_symlink", "iiiii", NOTCAPABLE),
    ("path_unlink_file", "iii", NOTCAPABLE),
    ("poll_oneoff", "iiii", NOTSUP),
    ("proc_raise", "i", NOTSUP),
    ("sock_accept", "iii", NOTSOCK),
    ("sock_recv", "iiiiii", NOTSOCK),
    ("sock_send", "iiiii", NOTSOCK),
    ("sock_shutdown", "ii", NOTSOCK),
];

/// Everything that can be imported.
pub fn linker(engine: &Engine) -> Result<Linker<HostState>> {
    let mut linker = Linker::new(engine);
    for (name, parameters, error) in DENIED {
        let parameters = parameters.bytes().map(|kind| if kind == b'I' { ValType::I64 } else { ValType::I32 });
        linker.func_new(WASI, name, FuncType::new(engine, parameters, [ValType::I32]), move |_, _, results| {
            results[0] = Val::I32(error);
            Ok(())
        })?;
    }
    linker.func_wrap(WASI, "args_sizes_get", nothing_there)?;
    linker.func_wrap(WASI, "environ_sizes_get", nothing_there)?;
    linker.func_wrap(WASI, "args_get", |_: u32, _: u32| SUCCESS)?;
    linker.func_wrap(WASI, "environ_get", |_: u32, _: u32| SUCCESS)?;
    linker.func_wrap(WASI, "clock_res_get", clock_resolution)?;
    linker.func_wrap(WASI, "clock_time_get", clock_time)?;
    linker.func_wrap(WASI, "random_get", random)?;
    linker.func_wrap(WASI, "sched_yield", || SUCCESS)?;
    linker.func_wrap(WASI, "proc_exit", |code: i32| -> Result<()> { Err(I32Exit(code).into()) })?;
    linker.func_wrap(WASI, "fd_write", write)?;
    linker.func_wrap(WASI, "fd_read", read)?;
    linker.func_wrap(WASI, "fd_close", |fd: u32| if is_stdio(fd) { SUCCESS } else { BADF })?;
    linker.func_wrap(WASI, "fd_seek", |fd: u32, _: i64, _: u32, _: u32| if is_stdio(fd) { SPIPE } else { BADF })?;
    linker.func_wrap(WASI, "fd_fdstat_get", status)?;
    linker.func_wrap("env", "abort", abort)?;
    Ok(linker)
}

fn is_stdio(fd: u32) -> bool {
    fd <= 2
}

/// No arguments and no environment: two counts of zero.
fn nothing_there(mut caller: Caller<'_, HostState>, count: u32, bytes: u32) -> i32 {
    errno(GuestMemory::of(&mut caller).and_then(|mut memory| {
        memory.put(count, &[0; 4])?;
        memory.put(bytes, &[0; 4])
    }))
}

fn clock_resolution(mut caller: Caller<'_, HostState>, clock: u32, at: u32) -> i32 {
    errno(clock_id(clock).and_then(|_| GuestMemory::of(&mut caller)?.put(at, &1_u64.to_le_bytes())))
}

fn clock_time(mut caller: Caller<'_, HostState>, clock: u32, _precision: u64, at: u32) -> i32 {
    errno(clock_id(clock).and_then(|clock| {
        let time = clock_gettime(clock);
        let nanoseconds = time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned();
        GuestMemory::of(&mut caller)?.put(at, &nanoseconds.to_le_bytes())
    }))
}

/// Realtime and monotonic; how much processor time the gateway has used is nobody's business.
fn clock_id(clock: u32) -> Result<ClockId, i32> {
    match clock {
        0 => Ok(ClockId::Realtime),
        1 => Ok(ClockId::Monotonic),
        _ => Err(INVAL),
    }
}

fn random(mut caller: Caller<'_, HostState>, at: u32, length: u32) -> i32 {
    if length > MAX_RANDOM {
        return INVAL;
    }
    errno(GuestMemory::of(&mut caller).and_then(|mut memory| {
        let mut room = memory.room(at, length)?;
        while !room.is_empty() {
            let filled = rustix::rand::getrandom(&mut *room, rustix::rand::GetRandomFlags::empty());
            room = &mut room[filled.map_err(|_| NOTSUP)?..];
        }
        Ok(())
    }))
}

/// Standard output and error go to the log, as far as its bounds allow; all of it counts as written.
fn write(mut caller: Caller<'_, HostState>, fd: u32, pieces: u32, count: u32, written: u32) -> i32 {
    if fd != 1 && fd != 2 {
        return BADF;
    }
    if count > MAX_PIECES {
        return INVAL;
    }
    errno(GuestMemory::of(&mut caller).and_then(|mut memory| {
        let mut total = 0_u32;
        for piece in 0..count {
            let entry = pieces.checked_add(piece * 8).ok_or(FAULT)?;
            let (at, length) = (memory.number(entry)?, memory.number(entry.checked_add(4).ok_or(FAULT)?)?);
            memory.state.print(memory.bytes.get(range(at, length)).ok_or(FAULT)?);
            total = total.checked_add(length).ok_or(INVAL)?;
        }
        memory.put(written, &total.to_le_bytes())
    }))
}

/// Standard input is at its end.
fn read(mut caller: Caller<'_, HostState>, fd: u32, _pieces: u32, _count: u32, got: u32) -> i32 {
    if fd != 0 {
        return BADF;
    }
    errno(GuestMemory::of(&mut caller).and_then(|mut memory| memory.put(got, &[0; 4])))
}

/// A character device with no flags and no rights.
fn status(mut caller: Caller<'_, HostState>, fd: u32, at: u32) -> i32 {
    if !is_stdio(fd) {
        return BADF;
    }
    let mut status = [0; 24];
    status[0] = 2;
    errno(GuestMemory::of(&mut caller).and_then(|mut memory| memory.put(at, &status)))
}

/// Logs the message, and ends the call as a trap does.
fn abort(mut caller: Caller<'_, HostState>, message: u32, file: u32, line: u32, column: u32) -> Result<()> {
    let text = match GuestMemory::of(&mut caller) {
        Ok(memory) => {
            let text = format!("abort: {} at {}:{line}:{column}\n", memory.string(message), memory.string(file));
            memory.state.print(text.as_bytes());
            text
        }
        Err(_) => "abort".to_owned(),
    };
    Err(Error::from(Trap::UnreachableCodeReached).context(text.trim_end().to_owned()))
}

fn errno(result: Result<(), i32>) -> i32 {
    result.err().unwrap_or(SUCCESS)
}

fn range(at: u32, length: u32) -> std::ops::Range<usize> {
    at as usize..at as usize + length as usize
}

/// The calling guest's memory, and what is ours.
struct GuestMemory<'a> {
    bytes: &'a mut [u8],
    state: &'a mut HostState,
}

impl<'a> GuestMemory<'a> {
    fn of(caller: &'a mut Caller<'_, HostState>) -> Result<Self, i32> {
        let memory: Memory = caller.get_export("memory").and_then(Extern::into_memory).ok_or(FAULT)?;
        let (bytes, state) = memory.data_and_store_mut(caller);
        Ok(Self { bytes, state })
    }

    fn room(&mut self, at: u32, length: u32) -> Result<&mut [u8], i32> {
        self.bytes.get_mut(range(at, length)).ok_or(FAULT)
    }

    fn put(&mut self, at: u32, bytes: &[u8]) -> Result<(), i32> {
        let length = u32::try_from(bytes.len()).map_err(|_| INVAL)?;
        self.room(at, length)?.copy_from_slice(bytes);
        Ok(())
    }

    fn number(&self, at: u32) -> Result<u32, i32> {
        let bytes = self.bytes.get(range(at, 4)).ok_or(FAULT)?;
        Ok(u32::from_le_bytes(bytes.try_into().map_err(|_| FAULT)?))
    }

    /// A string of AssemblyScript: UTF-16, with its length in bytes before it.
    fn string(&self, at: u32) -> String {
        let length = at.checked_sub(4).and_then(|before| self.number(before).ok()).unwrap_or(0);
        let units = self.bytes.get(range(at, length)).unwrap_or_default().chunks_exact(2).take(MAX_MESSAGE);
        let units: Vec<_> = units.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        String::from_utf16_lossy(&units)
    }
}
