//! The least loaded candidate; of equals, any with the same chance, so that idle workers share the work.

/// What one look at all candidates says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Survey {
    /// The least loaded one.
    pub least: usize,
    pub least_load: f64,
    total: f64,
    count: usize,
}

impl Survey {
    /// Reads each load once. `among` is not empty.
    pub fn of(among: &[usize], load: &impl Fn(usize) -> f64) -> Self {
        let (mut least, mut least_load, mut equals, mut total) = (among[0], f64::INFINITY, 0_u32, 0.0);
        for at in among {
            let load = load(*at);
            total += load;
            if load < least_load {
                (least_load, equals) = (load, 0);
            }
            if load == least_load {
                equals += 1;
                if fastrand::u32(..equals) == 0 {
                    least = *at;
                }
            }
        }
        Self { least, least_load, total, count: among.len() }
    }

    pub fn mean(&self) -> f64 {
        self.total / self.count as f64
    }

    /// The mean load of all but one that has `load`.
    pub fn mean_of_others(&self, load: f64) -> f64 {
        (self.total - load).max(0.0) / (self.count - 1).max(1) as f64
    }
}

pub fn choose(among: &[usize], load: &impl Fn(usize) -> f64) -> usize {
    Survey::of(among, load).least
}
