//! What an upstream has compressed, read in passing for flow control. The agent gets the bytes as they came; here they
//! are unpacked beside them, bounded in size and in ratio: what does not fit the bounds counts as not readable.

use std::io::{self, Write};

use brotli_decompressor::DecompressorWriter;
use flate2::write::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use zstd::stream::write::Decoder as ZstdDecoder;

/// What one reply may unpack to, in bytes.
const UNPACKED_BYTES_MAX: usize = 16 << 20;
/// How many times its packed size a reply may unpack to, beyond the first of these bytes.
const RATIO_MAX: usize = 100;
/// Up to so many bytes any ratio is taken.
const RATIO_FREE_BYTES: usize = 1 << 20;
/// How many encodings may lie over each other.
const LAYERS_MAX: usize = 2;
/// The buffer of the brotli decoder, in bytes.
const BUFFER_BYTES: usize = 4096;

/// The content of a reply cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// Unpacks one reply.
pub struct Decompress {
    /// The outermost encoding first.
    layers: Vec<Layer>,
    packed: usize,
    unpacked: usize,
}

enum Layer {
    Brotli(Box<DecompressorWriter<Sink>>),
    /// `deflate` before its first byte says of which kind it is: upstreams send it with and without zlib's head.
    Deflate,
    Gzip(MultiGzDecoder<Sink>),
    Raw(DeflateDecoder<Sink>),
    Zlib(ZlibDecoder<Sink>),
    Zstd(Box<ZstdDecoder<'static, Sink>>),
}

/// Takes what is unpacked, as much as there is room for.
#[derive(Default)]
struct Sink {
    bytes: Vec<u8>,
    room: usize,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.room {
            return Err(io::Error::other("unpacks to more than is looked at"));
        }
        self.room -= bytes.len();
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Decompress {
    /// What unpacks a reply with these headers; none for one that is not packed.
    ///
    /// Errors: an encoding that is not known.
    pub fn of(headers: &HeaderMap) -> Result<Option<Decompress>, Unreadable> {
        let mut layers = Vec::new();
        for value in headers.get_all(CONTENT_ENCODING) {
            for word in value.to_str().map_err(|_| Unreadable)?.split(',') {
                match word.trim().to_ascii_lowercase().as_str() {
                    "" | "identity" => {}
                    "br" => layers.push(Layer::Brotli(Box::new(DecompressorWriter::new(
                        Sink::default(),
                        BUFFER_BYTES,
                    )))),
                    "deflate" => layers.push(Layer::Deflate),
                    "gzip" | "x-gzip" => layers.push(Layer::Gzip(MultiGzDecoder::new(Sink::default()))),
                    "zstd" => {
                        let decoder = ZstdDecoder::new(Sink::default()).map_err(|_| Unreadable)?;
                        layers.push(Layer::Zstd(Box::new(decoder)));
                    }
                    _ => return Err(Unreadable),
                }
            }
        }
        // The last that was named was applied last [RFC 9110 §8.4].
        layers.reverse();
        match layers.len() {
            0 => Ok(None),
            1..=LAYERS_MAX => Ok(Some(Decompress { layers, packed: 0, unpacked: 0 })),
            _ => Err(Unreadable),
        }
    }

    /// Takes the next bytes of the reply, and gives what they unpack to.
    pub fn feed(&mut self, packed: &[u8]) -> Result<Vec<u8>, Unreadable> {
        self.packed += packed.len();
        let mut bytes = packed.to_vec();
        let ratio = self.packed.saturating_mul(RATIO_MAX).clamp(RATIO_FREE_BYTES, UNPACKED_BYTES_MAX);
        let room = ratio.saturating_sub(self.unpacked);
        for layer in &mut self.layers {
            bytes = layer.feed(&bytes, room).map_err(|_| Unreadable)?;
        }
        self.unpacked += bytes.len();
        Ok(bytes)
    }
}

impl Layer {
    fn feed(&mut self, packed: &[u8], room: usize) -> io::Result<Vec<u8>> {
        if let (Layer::Deflate, Some(first)) = (&*self, packed.first()) {
            // The method of zlib's head is 8, and its window at most 7 [RFC 1950 §2.2].
            *self = match first & 0x0f == 8 && first >> 4 <= 7 {
                true => Layer::Zlib(ZlibDecoder::new(Sink::default())),
                false => Layer::Raw(DeflateDecoder::new(Sink::default())),
            };
        }
        match self {
            Layer::Deflate => Ok(Vec::new()),
            Layer::Brotli(decoder) => {
                decoder.get_mut().room = room;
                decoder.write_all(packed)?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
            Layer::Gzip(decoder) => {
                decoder.get_mut().room = room;
                decoder.write_all(packed)?;
                decoder.flush()?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
            Layer::Raw(decoder) => {
                decoder.get_mut().room = room;
                decoder.write_all(packed)?;
                decoder.flush()?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
            Layer::Zlib(decoder) => {
                decoder.get_mut().room = room;
                decoder.write_all(packed)?;
                decoder.flush()?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
            Layer::Zstd(decoder) => {
                decoder.get_mut().room = room;
                decoder.write_all(packed)?;
                decoder.flush()?;
                Ok(std::mem::take(&mut decoder.get_mut().bytes))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn headers(encoding: &str) -> HeaderMap {
        HeaderMap::from_iter([(CONTENT_ENCODING, HeaderValue::from_str(encoding).unwrap())])
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpacked(encoding: &str, packed: &[u8], piece: usize) -> Result<Vec<u8>, Unreadable> {
        let mut decompress = Decompress::of(&headers(encoding))?.unwrap();
        let mut text = Vec::new();
        for piece in packed.chunks(piece.max(1)) {
            text.extend(decompress.feed(piece)?);
        }
        Ok(text)
    }

    #[test]
    fn each_encoding_is_read_whatever_its_pieces() {
        let text = b"the invoice of Ana Weber, IBAN DE02120300000000202051".repeat(9);
        // What brotli makes of `hello, hello`, which it does not compress: no encoder is needed for it.
        let brotli =
            [0x8b, 0x05, 0x80, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x2c, 0x20, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x03];
        for piece in [1, 7, 4096] {
            assert_eq!(unpacked("gzip", &gzip(&text), piece).unwrap(), text);
            assert_eq!(unpacked("deflate", &zlib(&text), piece).unwrap(), text);
            assert_eq!(unpacked("deflate", &deflate(&text), piece).unwrap(), text);
            assert_eq!(unpacked("zstd", &zstd::encode_all(&*text, 1).unwrap(), piece).unwrap(), text);
            assert_eq!(unpacked("deflate, gzip", &gzip(&zlib(&text)), piece).unwrap(), text);
            assert_eq!(unpacked("br", &brotli, piece).unwrap(), b"hello, hello");
        }
        assert!(Decompress::of(&headers("identity")).unwrap().is_none());
        assert!(Decompress::of(&HeaderMap::new()).unwrap().is_none());
    }

    #[test]
    fn what_is_not_known_or_unpacks_to_too_much_is_not_readable() {
        assert!(Decompress::of(&headers("compress")).is_err());
        assert!(Decompress::of(&headers("gzip, gzip, gzip")).is_err());
        let bomb = gzip(&vec![0; 64 << 20]);
        assert_eq!(unpacked("gzip", &bomb, 4096), Err(Unreadable));
        assert_eq!(unpacked("gzip", b"not gzip at all", 4096), Err(Unreadable));
        let bomb = zstd::encode_all(&*vec![0; 64 << 20], 1).unwrap();
        assert_eq!(unpacked("zstd", &bomb, 4096), Err(Unreadable));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            encoding in prop::sample::select(vec!["gzip", "deflate", "br", "zstd"]),
        ) {
            let _ = unpacked(encoding, &bytes, 37);
        }
    }
}
