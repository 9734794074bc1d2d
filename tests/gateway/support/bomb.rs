//! Components that are small to send and dear to compile, written byte by byte.

/// A component around a core module of `count` functions, all of them `code` behind `locals`.
pub fn bomb(count: usize, locals: &[u8], code: &[u8]) -> Vec<u8> {
    let function = [locals, code, b"\x0b"].concat();
    let function = [leb(function.len()), function].concat();
    let types = section(1, b"\x01\x60\x00\x00");
    let functions = section(3, &[leb(count), vec![0; count]].concat());
    let code = section(10, &[leb(count), function.repeat(count)].concat());
    let module = [b"\0asm\x01\0\0\0", &types[..], &functions, &code].concat();
    [&b"\0asm\x0d\0\x01\0"[..], &section(1, &module)].concat()
}

/// `count` locals of type i32.
pub fn locals(count: usize) -> Vec<u8> {
    [vec![1], leb(count), vec![0x7f]].concat()
}

fn section(id: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![id], leb(bytes.len()), bytes.to_vec()].concat()
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
