//! Conversations as applications have them: seeded, so that every policy is asked the same things. When a turn is asked
//! depends on when the answer before it ended, as with people; what is asked does not.

use fastrand::Rng;

/// Bytes of a token.
const TOKEN: usize = 4;
/// Tokens of a block of a worker's cache.
pub const BLOCK: usize = 16;
/// A conversation ends when it is so long.
const LONGEST: usize = 96 << 10;

/// What kind of conversations.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub sessions_per_second: f64,
    /// Each has a system prompt of its own. The n-th is used 1/n times as often as the first.
    pub applications: usize,
    /// Median length of a system prompt, in bytes.
    pub system: f64,
    /// Mean number of questions of a conversation.
    pub turns: f64,
}

pub struct Trace {
    rng: Rng,
    shape: Shape,
    /// The system prompts.
    applications: Vec<String>,
}

impl Trace {
    pub fn new(shape: Shape) -> Self {
        let mut rng = Rng::with_seed(42);
        let mut system = |_| {
            let length = log_normal(&mut rng, shape.system, 0.9).clamp(200.0, 40_000.0);
            text(&mut rng, "system\n", length)
        };
        let applications = (0..shape.applications).map(&mut system).collect();
        Self { rng, shape, applications }
    }

    /// Conversations and when each begins.
    pub fn sessions(mut self, length: f64) -> (Vec<Session>, Vec<f64>) {
        let (mut at, mut sessions, mut starts) = (0.0, Vec::new(), Vec::new());
        loop {
            at += exponential(&mut self.rng) / self.shape.sessions_per_second;
            if at >= length {
                return (sessions, starts);
            }
            let application = self.application();
            let mut session = Session::new(self.rng.fork(), application, self.shape.turns);
            session.ask();
            sessions.push(session);
            starts.push(at);
        }
    }

    /// Zipf's law with exponent 1.
    fn application(&mut self) -> String {
        let count = self.applications.len();
        let total: f64 = (1..=count).map(|n| 1.0 / n as f64).sum();
        let mut rest = self.rng.f64() * total;
        let chosen = (1..=count).position(|n| {
            rest -= 1.0 / n as f64;
            rest <= 0.0
        });
        self.applications[chosen.unwrap_or(0)].clone()
    }
}

pub struct Session {
    rng: Rng,
    /// All that was said, which is the next prompt.
    pub text: String,
    /// The hash of each block and all before it.
    pub blocks: Vec<u64>,
    turns: u32,
    answer: f64,
}

impl Session {
    fn new(mut rng: Rng, system: String, mean_turns: f64) -> Self {
        let turns = 1 + (exponential(&mut rng) * (mean_turns - 1.0)).round() as u32;
        Self { rng, text: system, blocks: Vec::new(), turns, answer: 0.0 }
    }

    /// Tokens of the prompt.
    pub fn tokens(&self) -> usize {
        self.text.len() / TOKEN
    }

    /// Tokens of the answer to come.
    pub fn answer_tokens(&self) -> f64 {
        self.answer / TOKEN as f64
    }

    /// The next turn, so many seconds later; `None` if the conversation is over.
    pub fn ask(&mut self) -> Option<f64> {
        if self.turns == 0 || self.text.len() > LONGEST {
            self.text = String::new();
            return None;
        }
        self.turns -= 1;
        // One message in eight comes with a document.
        let pasted = if self.rng.u8(..8) == 0 { log_normal(&mut self.rng, 8000.0, 0.8).min(60_000.0) } else { 0.0 };
        let length = log_normal(&mut self.rng, 160.0, 1.0) + pasted;
        self.say("user\n", length);
        self.answer = log_normal(&mut self.rng, 900.0, 0.8).min(16_000.0);
        Some(log_normal(&mut self.rng, 15.0, 1.0))
    }

    pub fn answer(&mut self) {
        self.say("assistant\n", self.answer);
    }

    fn say(&mut self, role: &str, length: f64) {
        let said = text(&mut self.rng, role, length);
        self.text.push_str(&said);
        let whole = self.text.len() / (BLOCK * TOKEN);
        for at in self.blocks.len()..whole {
            let block = self.text[at * BLOCK * TOKEN..(at + 1) * BLOCK * TOKEN].bytes();
            let before = self.blocks.last().copied().unwrap_or_default();
            let next = block.fold(before, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
            self.blocks.push(next ^ next >> 29);
        }
    }
}

fn text(rng: &mut Rng, role: &str, length: f64) -> String {
    let letters = std::iter::repeat_with(|| b"etaoin shrdlu cm"[rng.usize(..16)].into());
    role.chars().chain(letters.take(length as usize)).chain(['\n']).collect()
}

fn exponential(rng: &mut Rng) -> f64 {
    -(1.0 - rng.f64()).ln()
}

fn log_normal(rng: &mut Rng, median: f64, sigma: f64) -> f64 {
    // Box and Muller.
    let normal = (2.0 * exponential(rng)).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    median * (sigma * normal).exp()
}
