//! As much of JSON as a module needs that reads one string of an object and writes another.

/// Reads from front to back, once. That the text is well-formed is the host's promise, and a broken one traps.
export class Reader {
  private at: i32 = 0;

  constructor(private text: string) {}

  /// The value of a key of the object that is read, a string.
  stringAt(wanted: string): string {
    this.expect(CharCode.OpenBrace);
    while (true) {
      const key = this.takeString();
      this.expect(CharCode.Colon);
      if (key == wanted) return this.takeString();
      this.skipValue();
      this.expect(CharCode.Comma);
    }
  }

  private takeString(): string {
    this.expect(CharCode.Quote);
    // Escapes only make a string shorter.
    const taken = new Builder(this.text.length - this.at);
    while (true) {
      const code = this.next();
      if (code == CharCode.Quote) return taken.toString();
      taken.push(code == CharCode.Backslash ? this.escaped() : code);
    }
  }

  private skipString(): void {
    this.expect(CharCode.Quote);
    while (true) {
      const code = this.next();
      if (code == CharCode.Quote) return;
      if (code == CharCode.Backslash) this.at++;
    }
  }

  /// The character after a backslash, or half of a pair, as strings are made of halves too.
  private escaped(): i32 {
    const code = this.next();
    switch (code) {
      case CharCode.Quote:
      case CharCode.Backslash:
      case CharCode.Slash:
        return code;
      case CharCode.b:
        return CharCode.Backspace;
      case CharCode.f:
        return CharCode.FormFeed;
      case CharCode.n:
        return CharCode.LineFeed;
      case CharCode.r:
        return CharCode.CarriageReturn;
      case CharCode.t:
        return CharCode.Tab;
      case CharCode.u: {
        let unit = 0;
        for (let digit = 0; digit < 4; digit++) unit = (unit << 4) | hexValue(this.next());
        return unit;
      }
      default:
        throw new Error("no escape of JSON");
    }
  }

  private skipValue(): void {
    // Counted, not recursed into: nesting costs no stack.
    let depth = 0;
    do {
      const code = this.peekToken();
      if (code == CharCode.Quote) {
        this.skipString();
        continue;
      }
      if (isScalar(code)) {
        while (isScalar(this.peek())) this.at++;
        continue;
      }
      if (code == CharCode.OpenBrace || code == CharCode.OpenBracket) {
        depth++;
      } else {
        assert(depth > 0, "no value");
        if (code == CharCode.CloseBrace || code == CharCode.CloseBracket) depth--;
      }
      this.at++;
    } while (depth > 0);
  }

  private expect(token: i32): void {
    assert(this.peekToken() == token, "another token");
    this.at++;
  }

  /// The next character that is no space, without taking it.
  private peekToken(): i32 {
    while (isSpace(this.peek())) this.at++;
    return this.peek();
  }

  private next(): i32 {
    const code = this.peek();
    this.at++;
    return code;
  }

  private peek(): i32 {
    assert(this.at < this.text.length, "the end");
    return this.text.charCodeAt(this.at);
  }
}

/// A string as it stands in JSON, with its quotes.
export function quoted(text: string): string {
  // An escape is six characters long.
  const json = new Builder(2 + 6 * text.length);
  json.push(CharCode.Quote);
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code >= CharCode.Space && code != CharCode.Quote && code != CharCode.Backslash) {
      json.push(code);
      continue;
    }
    json.push(CharCode.Backslash);
    json.push(CharCode.u);
    for (let shift = 12; shift >= 0; shift -= 4) json.push(hexDigit((code >> shift) & 0xf));
  }
  json.push(CharCode.Quote);
  return json.toString();
}

/// A string that grows at its end. Adding to a `string` copies all of it each time.
class Builder {
  private units: Uint16Array;
  private length: i32 = 0;

  constructor(capacity: i32) {
    this.units = new Uint16Array(capacity);
  }

  push(unit: i32): void {
    this.units[this.length++] = unit as u16;
  }

  toString(): string {
    return String.UTF16.decode(this.units.buffer.slice(0, this.length << 1));
  }
}

const enum CharCode {
  Backspace = 0x08,
  Tab = 0x09,
  LineFeed = 0x0a,
  FormFeed = 0x0c,
  CarriageReturn = 0x0d,
  Space = 0x20,
  Quote = 0x22,
  Comma = 0x2c,
  Slash = 0x2f,
  Zero = 0x30,
  Nine = 0x39,
  Colon = 0x3a,
  OpenBracket = 0x5b,
  Backslash = 0x5c,
  CloseBracket = 0x5d,
  a = 0x61,
  b = 0x62,
  f = 0x66,
  n = 0x6e,
  r = 0x72,
  t = 0x74,
  u = 0x75,
  OpenBrace = 0x7b,
  CloseBrace = 0x7d,
}

function isSpace(code: i32): bool {
  return (
    code == CharCode.Space ||
    code == CharCode.Tab ||
    code == CharCode.LineFeed ||
    code == CharCode.CarriageReturn
  );
}

/// Part of a number, `true`, `false` or `null`: whatever is no other token.
function isScalar(code: i32): bool {
  return !(
    isSpace(code) ||
    code == CharCode.Quote ||
    code == CharCode.Comma ||
    code == CharCode.Colon ||
    code == CharCode.OpenBrace ||
    code == CharCode.CloseBrace ||
    code == CharCode.OpenBracket ||
    code == CharCode.CloseBracket
  );
}

function hexValue(digit: i32): i32 {
  if (digit >= CharCode.Zero && digit <= CharCode.Nine) return digit - CharCode.Zero;
  const letter = (digit | 0x20) - CharCode.a;
  assert(letter >= 0 && letter < 6, "no hexadecimal digit");
  return letter + 10;
}

function hexDigit(value: i32): i32 {
  return value < 10 ? CharCode.Zero + value : CharCode.a + value - 10;
}
