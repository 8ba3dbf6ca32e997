//! Random bytes from the host's kernel.

use kasane_ports::Entropy;

/// The host's random source.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostEntropy;

impl HostEntropy {
    /// The source, if it gives bytes.
    ///
    /// # Errors
    /// The host's reason why it gives none.
    pub fn open() -> Result<Self, std::io::Error> {
        let mut probe = [0; 8];
        getrandom::fill(&mut probe)?;
        Ok(Self)
    }
}

impl Entropy for HostEntropy {
    fn fill(&self, buf: &mut [u8]) {
        // Opened, so it gave bytes before; a source that fails later leaves what the caller had,
        // and a guest sees repeated bytes rather than a dead machine.
        let _failed_later = getrandom::fill(buf);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let source = HostEntropy::open().unwrap();
        let (mut a, mut b) = ([0; 32], [0; 32]);
        source.fill(&mut a);
        source.fill(&mut b);

        assert_ne!(a, b);
        assert_ne!(a, [0; 32]);
    }
}
