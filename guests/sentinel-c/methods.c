// Lets requests with the methods GET, HEAD and POST through, and answers all others with 405: a module of the Sentinel ABI
// in C without a library.
//
// Every answer is a constant, so what has to be done by hand is memory for the input, and finding the method in it.

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT(name) __attribute__((export_name(name)))

static const char *const METHODS[] = {"GET", "HEAD", "POST"};

static const char ALLOWED[] =
    "{\"decision\":\"allow\",\"add_response_headers\":{\"X-Guest\":\"c\"}}";
static const char REFUSED[] =
    "{\"decision\":\"block\",\"status\":405,\"body\":\"Method not allowed\","
    "\"add_response_headers\":{\"Allow\":\"GET, HEAD, POST\",\"X-Guest\":\"c\"},"
    "\"tags\":[\"method\"]}";

// Memory: a stack of blocks above the module's own data, empty again when as many blocks were given back as were given
// out. The host has one input at a time, and blocks are never freed one by one.

// Set by the linker; only its address means anything.
extern uint8_t __heap_base;

static uint64_t top;
static size_t blocks;

static uint64_t bottom(void) {
    // Multiples of 8, as hosts and compilers expect of an allocator.
    return ((uintptr_t)&__heap_base + 7) & ~UINT64_C(7);
}

// In 64 bits nothing overflows, whatever size is asked for.
EXPORT("alloc") uint8_t *alloc(size_t size) {
    const uint64_t page = 65536;
    uint64_t start = blocks == 0 ? bottom() : top;
    // One more byte, so that an empty block has an address of its own.
    uint64_t end = (start + size + 8) & ~UINT64_C(7);
    uint64_t limit = __builtin_wasm_memory_size(0) * page;
    if (end > limit) {
        size_t pages = (end - limit + page - 1) / page;
        if (__builtin_wasm_memory_grow(0, pages) == SIZE_MAX) {
            return NULL;
        }
    }
    top = end;
    blocks++;
    return (uint8_t *)(uintptr_t)start;
}

EXPORT("dealloc") void dealloc(uint8_t *block, size_t size) {
    (void)size;
    // Answers are not from here.
    if ((uintptr_t)block >= bottom() && blocks > 0) {
        blocks--;
    }
}

// JSON, read once from front to back. That it is well-formed is the host's promise, and a broken one traps; what is
// checked is that reading ends with the input.

struct input {
    const uint8_t *at;
    const uint8_t *end;
};

static uint8_t peek(const struct input *in) {
    if (in->at == in->end) {
        __builtin_trap();
    }
    return *in->at;
}

static uint8_t next(struct input *in) {
    uint8_t byte = peek(in);
    in->at++;
    return byte;
}

// The next byte that is no space, without taking it.
static uint8_t peek_token(struct input *in) {
    for (;;) {
        switch (peek(in)) {
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            in->at++;
            break;
        default:
            return *in->at;
        }
    }
}

static void expect(struct input *in, uint8_t token) {
    if (peek_token(in) != token) {
        __builtin_trap();
    }
    in->at++;
}

static uint32_t hex_digit(uint8_t byte) {
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    byte |= 0x20;
    if (byte < 'a' || byte > 'f') {
        __builtin_trap();
    }
    return byte - 'a' + 10;
}

// What a character that is not ASCII is read as: nothing here is compared with one.
static const uint8_t OTHER = 0xff;

// A character after a backslash.
static uint8_t escaped(struct input *in) {
    uint8_t kind = next(in);
    switch (kind) {
    case '"':
    case '\\':
    case '/':
        return kind;
    case 'b':
        return '\b';
    case 'f':
        return '\f';
    case 'n':
        return '\n';
    case 'r':
        return '\r';
    case 't':
        return '\t';
    case 'u': {
        uint32_t unit = 0;
        for (int digit = 0; digit < 4; digit++) {
            unit = unit << 4 | hex_digit(next(in));
        }
        return unit < 0x80 ? (uint8_t)unit : OTHER;
    }
    default:
        __builtin_trap();
    }
}

// The start of a string, as much of it as any comparison here needs, and the length of all of it.
struct text {
    uint8_t start[8];
    size_t len;
};

static struct text take_string(struct input *in) {
    struct text text = {.len = 0};
    expect(in, '"');
    for (;;) {
        uint8_t byte = next(in);
        if (byte == '"') {
            return text;
        }
        if (byte == '\\') {
            byte = escaped(in);
        }
        if (text.len < sizeof text.start) {
            text.start[text.len] = byte;
        }
        text.len++;
    }
}

// `word` is shorter than what is kept of a text.
static bool is(const struct text *text, const char *word) {
    size_t len = 0;
    while (word[len] != '\0') {
        if (len == text->len || text->start[len] != (uint8_t)word[len]) {
            return false;
        }
        len++;
    }
    return len == text->len;
}

static void skip_scalar(struct input *in) {
    for (;;) {
        switch (peek(in)) {
        case ',':
        case ']':
        case '}':
        case ' ':
        case '\t':
        case '\r':
        case '\n':
            return;
        default:
            in->at++;
        }
    }
}

static void skip_value(struct input *in) {
    // Counted, not recursed into: nesting costs no stack.
    size_t depth = 0;
    do {
        switch (peek_token(in)) {
        case '"':
            take_string(in);
            break;
        case '{':
        case '[':
            depth++;
            in->at++;
            break;
        case '}':
        case ']':
            if (depth == 0) {
                __builtin_trap();
            }
            depth--;
            in->at++;
            break;
        case ',':
        case ':':
            if (depth == 0) {
                __builtin_trap();
            }
            in->at++;
            break;
        default:
            skip_scalar(in);
        }
    } while (depth > 0);
}

// The value of the key `method`, which is always there.
static struct text method_in(struct input in) {
    expect(&in, '{');
    for (;;) {
        struct text key = take_string(&in);
        expect(&in, ':');
        if (is(&key, "method")) {
            return take_string(&in);
        }
        skip_value(&in);
        expect(&in, ',');
    }
}

static uint64_t packed(const char *answer, size_t len) {
    return (uint64_t)(uintptr_t)answer << 32 | len;
}

EXPORT("on_request_headers") uint64_t on_request_headers(const uint8_t *json, size_t len) {
    struct text method = method_in((struct input){.at = json, .end = json + len});
    for (size_t i = 0; i < sizeof METHODS / sizeof METHODS[0]; i++) {
        // Methods are case-sensitive.
        if (is(&method, METHODS[i])) {
            return packed(ALLOWED, sizeof ALLOWED - 1);
        }
    }
    return packed(REFUSED, sizeof REFUSED - 1);
}
