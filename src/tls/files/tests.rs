use std::os::unix::ffi::OsStrExt;

use rcgen::KeyPair as MadeKey;
use rcgen::date_time_ymd;

use super::*;
use crate::tls::fixtures::{Authority, Directory, Leaf, RSA};
use crate::tls::provider;

fn load(files: &KeyPairFiles) -> Result<KeyPair, FileError> {
    KeyPair::new(files, &read(&files.chain)?, &read(&files.key)?, &provider())
}

/// The key inside PKCS#8 (RFC 5958): the octet string at its end, as PEM of `label`.
fn unwrapped(pem: &str, label: &str) -> String {
    let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(pem.as_bytes()).expect("a key") else {
        panic!("not PKCS#8");
    };
    let der = key.secret_pkcs8_der();
    // Both kinds begin with a sequence that begins with a number: version 0 (RSA) or 1 (EC).
    let begins = |at: &usize| {
        let rest = &der[*at..];
        rest.starts_with(&[0x30, 0x82]) && rest[4..].starts_with(&[2, 1, 0, 2])
            || rest[0] == 0x30 && rest[2..].starts_with(&[2, 1, 1, 4])
    };
    let at = (1..der.len() - 8).find(begins).expect("an inner key");
    rcgen_pem(label, &der[at..])
}

fn rcgen_pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in der.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..4 {
            let digit = (digit <= group.len()).then(|| DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]);
            text.push(digit.map_or('=', char::from));
        }
    }
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

#[test]
fn every_usual_form_of_key_is_taken() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let ec = ca.leaf(&["a.test", "*.B.test"]);
    let rsa = ca.leaf_with(&["a.test"], MadeKey::from_pem(RSA).expect("a key"), |_| {});
    let sec1 = Leaf { key: unwrapped(&ec.key, "EC PRIVATE KEY"), ..ec.clone() };
    let pkcs1 = Leaf { key: unwrapped(RSA, "RSA PRIVATE KEY"), ..rsa.clone() };
    for leaf in [&ec, &rsa, &sec1, &pkcs1] {
        load(&directory.write_leaf("a", leaf)).unwrap_or_else(|error| panic!("{error} in {}", leaf.key));
    }
    let whole = directory.write("whole.pem", format!("{}# and\n{}{}", ec.key, ec.chain, ca.pem()));
    let pair = load(&KeyPairFiles { chain: whole.clone(), key: whole }).expect("a pair in one file");
    assert_eq!((pair.certified.cert.len(), pair.names), (2, vec!["a.test".to_owned(), "*.b.test".to_owned()]));
}

#[test]
fn an_error_names_the_file_and_what_is_wrong_with_it() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let (good, other) = (ca.leaf(&["a.test"]), ca.leaf(&["a.test"]));
    let text = |name: &str, text: &str| directory.write(name, text);
    let (chain, key) = (text("good.pem", &good.chain), text("good.key", &good.key));
    let encrypted = good.key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let old = good.key.replace("KEY-----\nM", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nM");
    let broken = good.chain.replace("MII", "!!!");
    let nonsense = rcgen_pem("CERTIFICATE", b"nonsense");
    let weak = rcgen_pem("PRIVATE KEY", b"nonsense");
    for (chain, key, wrong) in [
        (&directory.path("no.pem"), &key, "no.pem: no such file"),
        (&chain, &directory.path("good.pem/no.key"), "no.key: no such file"),
        (&directory.path(""), &key, "not a regular file"),
        (&chain, &directory.path(std::str::from_utf8(&[b'x'; 300]).expect("text")), "x: can't be read: "),
        (&text("empty.pem", ""), &key, "empty.pem: no certificate in it"),
        (&key, &key, "good.key: no certificate in it"),
        (&text("broken.pem", &broken), &key, "broken.pem: not PEM"),
        (&text("nonsense.pem", &nonsense), &key, "nonsense.pem: a certificate in it can't be used: "),
        (&chain, &chain, "good.pem: no private key in it"),
        (&chain, &text("encrypted.key", &encrypted), "encrypted.key: the private key has a passphrase"),
        (&chain, &text("old.key", &old), "old.key: the private key has a passphrase"),
        (&chain, &text("weak.key", &weak), "weak.key: the private key can't be used: "),
        (&chain, &text("other.key", &other.key), "other.key: the key does not belong to the first certificate in /"),
        (&text("large.pem", &"\n".repeat(MAX_FILE as usize + 1)), &key, "large.pem: larger than 4 MiB"),
    ] {
        let files = KeyPairFiles { chain: chain.clone(), key: key.clone() };
        let error = load(&files).expect_err(wrong).to_string();
        assert!(
            error.contains(wrong) && error.as_bytes().starts_with(directory.path("").as_os_str().as_bytes()),
            "{error}"
        );
    }
}

#[test]
fn a_certificate_past_its_time_is_taken() {
    let (directory, ca) = (Directory::new(), Authority::new());
    let leaf = ca.leaf_with(&["a.test"], MadeKey::generate().expect("a key"), |params| {
        params.not_before = date_time_ymd(2001, 2, 3);
        params.not_after = date_time_ymd(2004, 5, 6);
    });
    let pair = load(&directory.write_leaf("a", &leaf)).expect("a pair");
    let dates = [pair.not_before, pair.not_after].map(httpdate::fmt_http_date);
    assert_eq!(dates, ["Sat, 03 Feb 2001 00:00:00 GMT", "Thu, 06 May 2004 00:00:00 GMT"]);
}
