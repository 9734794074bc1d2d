use super::*;

fn kept(shelf: &Rc<Shelf>, most: u64) -> Kept {
    let mut kept = Kept::default();
    kept.keep = Some(Keep { most, shelf: shelf.clone() });
    kept
}

fn piece(length: usize) -> Bytes {
    (0..length).map(|at| at as u8).collect()
}

/// What the pieces hold and the handles to them, with what is not in use.
fn held(kept: &Kept) -> u64 {
    let bytes = kept.pieces.iter().map(Bytes::len).sum::<usize>() + kept.small.capacity();
    let handles = if kept.pieces.spilled() { kept.pieces.capacity() * size_of::<Bytes>() } else { 0 };
    (bytes + handles) as u64
}

#[test]
fn one_small_piece_is_not_copied() {
    let shelf = Rc::<Shelf>::default();
    let (mut one, piece) = (kept(&shelf, 100), piece(10));
    assert_eq!(one.add(&piece), Ok(()));
    assert_eq!(one.pieces[0].as_ptr(), piece.as_ptr());
    assert_eq!((one.small.capacity(), one.pieces.spilled(), shelf.taken.get()), (0, false, 10 + HANDLE));
}

#[test]
fn pieces_of_a_byte_cost_little_more_than_their_bytes() {
    let shelf = Rc::<Shelf>::default();
    let mut body = kept(&shelf, 1 << 18);
    let bytes = piece(1 << 18);
    for at in 0..bytes.len() {
        assert_eq!(body.add(&bytes.slice(at..=at)), Ok(()));
    }
    assert_eq!(body.add(&bytes.slice(..1)), Err(NoRoom::InBody));
    assert!(shelf.taken.get() < 350_000, "{}", shelf.taken.get());
    let pieces = body.pieces();
    assert!(pieces.len() < 12, "{}", pieces.len());
    assert_eq!(pieces.iter().flatten().copied().collect::<Bytes>(), bytes);
}

#[test]
fn what_is_taken_from_the_shelf_is_what_pieces_cost_and_their_order_is_kept() {
    for lengths in [&[1, SMALL][..], &[SMALL, 1], &[1, 1, SMALL], &[SMALL - 1, 3], &[70_000, 0, 5], &[0]] {
        let shelf = Rc::<Shelf>::default();
        let mut body = kept(&shelf, u64::MAX);
        let mut sent = Vec::new();
        for length in lengths.iter().cycle().take(100) {
            let piece = piece(*length);
            assert_eq!(body.add(&piece), Ok(()));
            sent.extend_from_slice(&piece);
        }
        assert!(shelf.taken.get() >= held(&body), "{lengths:?}: {} of {}", shelf.taken.get(), held(&body));
        for _ in 0..2 {
            assert!(body.pieces().iter().flatten().eq(&sent), "{lengths:?}");
        }
        assert_eq!(body.add(&piece(2)), Ok(()), "and it goes on");
        sent.extend([0, 1]);
        assert!(body.give_away().iter().flatten().eq(&sent), "{lengths:?}");
        assert!(shelf.taken.get() >= sent.len() as u64, "it counts still");
        body.lose();
        assert_eq!(shelf.taken.get(), 0);
    }
}

#[test]
fn a_full_shelf_takes_nothing_and_has_room_again_when_others_are_gone() {
    let shelf = Rc::<Shelf>::default();
    let large = piece((1 << 20) - 64);
    let mut others: Vec<_> = (0..200).map(|_| kept(&shelf, 1 << 20)).collect();
    let full = others.iter_mut().filter_map(|other| other.add(&large).err()).count();
    assert_eq!(full, 200 - 128, "with their handles");
    drop(others.swap_remove(0));
    let (mut filler, mut one) = (kept(&shelf, 1 << 20), kept(&shelf, 1 << 20));
    assert_eq!(filler.add(&large.slice(1000..)), Ok(()));
    assert_eq!(one.add(&large), Err(NoRoom::OnShelf));
    assert_eq!(one.add(&piece(1)), Ok(()), "there is room for less");
    let before = shelf.taken.get();
    assert_eq!((one.add(&large.slice(1..)), shelf.taken.get()), (Err(NoRoom::OnShelf), before));
    drop((others, filler));
    assert_eq!(one.add(&large.slice(1000..)), Ok(()));
    drop(one);
    assert_eq!(shelf.taken.get(), 0);
}

#[test]
fn large_bodies_leave_room_for_others() {
    let shelf = Rc::<Shelf>::default();
    let piece = piece(1 << 20);
    let mut large = [(); 3].map(|()| kept(&shelf, u64::MAX));
    for _ in 0..200 {
        large.iter_mut().for_each(|body| drop(body.add(&piece)));
    }
    assert!(shelf.taken.get() <= MOST_LARGE && shelf.taken.get() == shelf.large.get());
    let mut others: Vec<_> = (0..200).map(|_| kept(&shelf, 1 << 20)).collect();
    let fit = others.iter_mut().filter(|other| other.cost == 0).map(|other| other.add(&piece.slice(..150_000)));
    assert_eq!(fit.filter(Result::is_ok).count(), 200);
    assert_eq!(others[0].add(&piece), Err(NoRoom::InBody));
    assert_eq!(others[0].charge(1 << 20), Err(NoRoom::OnShelf), "it would be large");
    let [one, ..] = large;
    drop(one);
    assert_eq!(others[0].charge(1 << 20), Ok(()));
    drop((others, shelf.large.get()));
}
