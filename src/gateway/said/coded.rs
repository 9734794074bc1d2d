//! Bodies with a content coding. They are decoded to find the model, and sent on unchanged.

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::{Named, Said, Search};
use crate::content_coding::{Coding, Step};
use crate::gateway::error::GatewayError;
use crate::gateway::exchange::Exchange;
use crate::gateway::upload::{Stopped, WorkerBody};
use crate::model_name::{Format, Found, Model, Scanner};

/// Decoded bytes that every body may have.
const ANY: u64 = 16 << 20;
/// Further decoded bytes that a body may have for each coded byte. Text rarely shrinks to less than a tenth.
const TIMES: u64 = 20;
/// Largest number of bytes decoded in one step.
const AT_ONCE: usize = 16 * 1024;
/// Number of steps after which the task yields.
const STEPS: u32 = 8;

/// Bodies that wait to be decoded, at most.
const MOST_WAITING: usize = 16;

/// Who may decode a body in a shard.
pub struct Decoding {
    /// For those who wait, and for the one who decodes.
    places: Semaphore,
    turn: Semaphore,
}

impl Default for Decoding {
    fn default() -> Self {
        Self { places: Semaphore::new(1 + MOST_WAITING), turn: Semaphore::new(1) }
    }
}

/// How a decoded body ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Whole,
    /// The reader did not want more.
    Enough,
    /// The body is malformed from here on.
    Broken,
    /// The body decodes to more than this many bytes, which is far more than its length.
    TooLong(u64),
    NoRoom,
}

/// Whether the reader wants more.
enum Taken {
    More,
    Enough,
    NoRoom,
}

/// Decodes what the pieces hold and shows it to `take` bit by bit. One body at a time in each shard: what a decoder
/// needs in memory is counted nowhere else. Some wait for their turn, and for more there is no room.
async fn decode(
    exchange: &Exchange<'_>,
    coding: Coding,
    pieces: &[Bytes],
    mut take: impl FnMut(&[u8]) -> Taken,
) -> End {
    let Ok(_place) = exchange.gateway.decoding.places.try_acquire() else { return End::NoRoom };
    let _turn = exchange.gateway.decoding.turn.acquire().await;
    let most = ANY + TIMES * pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
    let (mut decoder, mut buffer) = (coding.decoder(pieces), vec![0; AT_ONCE]);
    let (mut bytes, mut steps) = (0, 0);
    loop {
        match decoder.step(&mut buffer) {
            Step::Bytes(count) => {
                bytes += count as u64;
                if bytes > most {
                    return End::TooLong(most);
                }
                match take(&buffer[..count]) {
                    Taken::More => {}
                    Taken::Enough => return End::Enough,
                    Taken::NoRoom => return End::NoRoom,
                }
            }
            Step::Nothing => {}
            Step::End => return End::Whole,
            Step::Broken => return End::Broken,
        }
        steps += 1;
        if steps % STEPS == 0 {
            yield_now().await;
        }
    }
}

/// The decoded body.
pub async fn decoded(exchange: &Exchange<'_>, coding: Coding, body: WorkerBody) -> Result<WorkerBody, GatewayError> {
    let (upload, pieces, mut decoded) = (exchange.record.upload(), body.held(), Vec::new());
    let end = decode(exchange, coding, &pieces, |bytes| {
        // Count the bytes before holding them.
        if upload.charge(bytes.len() as u64).is_err() {
            return Taken::NoRoom;
        }
        decoded.extend_from_slice(bytes);
        Taken::More
    });
    let end = end.await;
    match end {
        End::Whole | End::Enough => {
            upload.let_go();
            Ok(WorkerBody::Whole(Some(decoded.into())))
        }
        End::Broken => Err(GatewayError::BrokenBody),
        End::TooLong(most) => Err(GatewayError::BodyTooLarge(most)),
        End::NoRoom => Err(GatewayError::Pressed),
    }
}

impl Search {
    /// Reads a body that must be decoded to find its model. The body is held whole.
    pub(super) async fn coded(
        &self,
        exchange: &Exchange<'_>,
        format: &Format,
        coding: Coding,
        body: WorkerBody,
    ) -> Result<(WorkerBody, Said), GatewayError> {
        let (body, stopped) = body.hold(self.limit, |_, _| false).await?;
        let mut scanner = format.scanner();
        if stopped != Stopped::Whole {
            return self.is_enough(stopped, &scanner).map(|_| (body, Said::default()));
        }
        let (pieces, mut text) = (body.held(), Vec::new());
        let mut has_text = self.wants_text;
        let end = decode(exchange, coding, &pieces, |bytes| {
            scanner.push(bytes);
            has_text &= scanner.is_object() && (text.len() + bytes.len()) as u64 <= self.most;
            if has_text {
                text.extend_from_slice(bytes);
            }
            if has_text || !scanner.is_done() { Taken::More } else { Taken::Enough }
        });
        let end = end.await;
        match end {
            End::TooLong(most) if self.wants.choice => return Err(GatewayError::BodyTooLarge(most)),
            End::NoRoom if self.wants.choice => return Err(GatewayError::Pressed),
            End::TooLong(_) | End::NoRoom => return Ok((body, Said::default())),
            End::Broken | End::Whole | End::Enough => scanner.finish(),
        }
        // Many workers don't look at the field, and take a body as it comes.
        let plain = scanned(format, &pieces).await;
        let is_ambiguous = scanner.found().contradicts(plain.found())
            // Some take what comes before the fault.
            || (end == End::Broken && scanner.found().count > 0);
        let mut coding = Some(coding);
        if scanner.found().count == 0 {
            (scanner, coding) = (plain, None);
        }
        let spelling = scanner.spelling();
        let Found { model, places, .. } = scanner.found().clone();
        let model = if is_ambiguous { Model::Ambiguous } else { model };
        let places = places.into_vec();
        let text = if end == End::Whole && has_text { self.counted(exchange, text) } else { None };
        let model = if self.wants.model() { model } else { Model::Unsaid };
        Ok((body, Said { model, named: Named::InBody { places, spelling, coding }, text }))
    }

    /// The decoded body, if there is room for it besides the coded one.
    fn counted(&self, exchange: &Exchange<'_>, text: Vec<u8>) -> Option<Bytes> {
        let has_room = exchange.record.upload().charge(text.len() as u64).is_ok();
        has_room.then(|| text.into())
    }
}

/// What a body says without being decoded.
async fn scanned(format: &Format, pieces: &[Bytes]) -> Scanner {
    let mut scanner = format.scanner();
    for part in pieces.iter().flat_map(|piece| piece.chunks(STEPS as usize * AT_ONCE)) {
        scanner.push(part);
        if scanner.is_done() {
            break;
        }
        yield_now().await;
    }
    scanner.finish();
    scanner
}
