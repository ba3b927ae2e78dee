//! Labelled images in memory: bytes, planar (all of one channel, then the next), rows from the top.

/// Images of one size with labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    channels: usize,
    side: usize,
    pixels: Vec<u8>,
    labels: Vec<u8>,
}

impl Images {
    /// None yet, of `channels` channels and `side` x `side` pixels.
    pub fn empty(channels: usize, side: usize) -> Self {
        Self { channels, side, pixels: Vec::new(), labels: Vec::new() }
    }

    /// Adds an image. Panics where `pixels` has another size than the others.
    pub fn push(&mut self, label: u8, pixels: &[u8]) {
        assert_eq!(pixels.len(), self.size(), "an image of another size");
        self.labels.push(label);
        self.pixels.extend_from_slice(pixels);
    }

    /// Adds all of `others`. Panics where they have another size.
    pub fn append(&mut self, others: Images) {
        assert_eq!((others.channels, others.side), (self.channels, self.side), "of another size");
        self.labels.extend(others.labels);
        self.pixels.extend(others.pixels);
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Channels of an image.
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Height and width of an image.
    pub fn side(&self) -> usize {
        self.side
    }

    /// All labels.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Image `index`. Panics where there is none.
    pub fn pixels(&self, index: usize) -> &[u8] {
        &self.pixels[index * self.size()..(index + 1) * self.size()]
    }

    fn size(&self) -> usize {
        self.channels * self.side * self.side
    }
}
