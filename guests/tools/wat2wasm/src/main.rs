//! `wat2wasm TEXT WASM` assembles a module.

use std::env::args_os;
use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let paths: Vec<_> = args_os().skip(1).map(PathBuf::from).collect();
    let [text, wasm] = &paths[..] else {
        return Err("usage: wat2wasm TEXT WASM".into());
    };
    fs::write(wasm, wat::parse_file(text)?)?;
    Ok(())
}
