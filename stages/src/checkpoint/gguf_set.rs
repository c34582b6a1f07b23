//! Models in one GGUF file, or split over several as llama.cpp's `llama-gguf-split` does it: files named
//! `<name>-00001-of-00003.gguf`, each with its number (`split.no`, from 0), the number of files (`split.count`) and of
//! all tensors (`split.tensors.count`). The first file has the metadata.

use std::path::{Path, PathBuf};

use schema::Fingerprint;

use super::{Checkpoint, Header, OpenError, Part, TensorInfo, fingerprint};
use crate::gguf::{self, Keep, Metadata, MetadataError};
use crate::weights::Mapping;

/// Maximum number of files of a model: a model of a terabyte in files of a gigabyte.
const PARTS_MAX: u32 = 1024;

/// Keys that each file of a split model has for itself.
const OWN_KEYS: &str = "split.";

/// The place of a file in a split model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    number: u32,
    count: u32,
    /// Number of tensors in all files. Older files do not tell it.
    tensors: Option<u64>,
}

/// A file with its parsed header.
struct Parsed {
    part: Part,
    header: gguf::GgufHeader,
}

/// Opens the file at `path`, and the other files of its model if it is one of several. The fingerprint is computed
/// unless it is `known`.
pub(super) fn open(path: &Path, known: Option<&Fingerprint>) -> Result<Checkpoint, OpenError> {
    let first = Parsed::open(path)?;
    let place = first.place()?;
    if place.count > 1 {
        return open_set(path, place, known);
    }
    let fingerprint = known.map_or_else(|| first.fingerprint(), |known| Ok(known.clone()))?;
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    Ok(Checkpoint { name, parts: vec![first.part], header: Header::of_gguf(first.header), fingerprint, folder: None })
}

/// The metadata of `part`, the first of a model, with the vocabulary.
pub(super) fn vocabulary_metadata(part: &Part) -> Result<Metadata, OpenError> {
    Ok(parse(part, Keep::Everything)?.metadata)
}

/// Opens all files of the split model that the file at `path`, whose own keys say `given`, is part of.
fn open_set(path: &Path, given: Place, known: Option<&Fingerprint>) -> Result<Checkpoint, OpenError> {
    let set = FileNames::of(path, given)?;
    let files = (0..given.count).map(|number| open_part(&set, number, given)).collect::<Result<Vec<_>, _>>()?;
    check_metadata(&files)?;
    let found: usize = files.iter().map(|file| file.header.tensors.len()).sum();
    if let Some(expected) = given.tensors.filter(|expected| *expected != found as u64) {
        let expected = format!("{expected} tensors in all {} parts (split.tensors.count)", given.count);
        return Err(split_error(&set.path(0), expected, found.to_string()));
    }
    let fingerprint = match known {
        Some(known) => known.clone(),
        None => fingerprint::of_set(files.iter().map(Parsed::fingerprint).collect::<Result<Vec<_>, _>>()?.iter()),
    };
    let (mut parts, mut tensors, mut metadata) = (Vec::new(), Vec::new(), Metadata::default());
    for (index, file) in files.into_iter().enumerate() {
        parts.push(file.part);
        tensors.extend(file.header.tensors.into_iter().map(|tensor| TensorInfo::of_gguf(tensor, index)));
        if index == 0 {
            metadata = file.header.metadata;
        }
    }
    let part_of = |tensor: &TensorInfo| tensor.pieces().first().map_or(0, |piece| piece.part);
    let header = match Header::new(metadata, tensors.clone()) {
        Ok(header) => header,
        Err(index) => {
            let name = &tensors[index].name;
            let first = tensors.iter().find(|tensor| tensor.name == *name).map_or(0, part_of);
            let expected = format!("no tensor {name:?}, as part {} has it", first + 1);
            return Err(split_error(&parts[part_of(&tensors[index])].path, expected, "a second one".to_owned()));
        }
    };
    Ok(Checkpoint { name: set.name, parts, header, fingerprint, folder: None })
}

/// Opens part `number` of a set whose given part says `given`.
fn open_part(set: &FileNames, number: u32, given: Place) -> Result<Parsed, OpenError> {
    let path = set.path(number);
    let expected = || format!("part {} of {}", number + 1, given.count);
    if !path.exists() {
        return Err(split_error(&path, expected(), "no such file".to_owned()));
    }
    let file = Parsed::open(&path)?;
    let place = file.place()?;
    if (place.number, place.count) != (number, given.count) {
        let found = format!("part {} of {} (split.no, split.count)", place.number + 1, place.count);
        return Err(split_error(&path, expected(), found));
    }
    if place.tensors != given.tensors {
        let count = |place: Place| place.tensors.map_or("no such key".to_owned(), |count| count.to_string());
        let expected = format!("split.tensors.count {}, as in the given part", count(given));
        return Err(split_error(&path, expected, count(place)));
    }
    Ok(file)
}

/// Refuses a part whose metadata contradict the first part's.
fn check_metadata(files: &[Parsed]) -> Result<(), OpenError> {
    let Some((first, others)) = files.split_first() else { return Ok(()) };
    for file in others {
        for (key, value) in file.header.metadata.iter().filter(|(key, _)| !key.starts_with(OWN_KEYS)) {
            let expected = first.header.metadata.get(key);
            if expected != Some(value) {
                let of_first = expected.map_or("no such key".to_owned(), gguf::Value::describe);
                let expected = format!("the first part's metadata, in which {key:?} is {of_first}");
                return Err(split_error(&file.part.path, expected, value.describe()));
            }
        }
    }
    Ok(())
}

fn split_error(path: &Path, expected: String, found: String) -> OpenError {
    OpenError::Split { path: path.to_owned(), expected, found }
}

// === impl Parsed ===

impl Parsed {
    fn open(path: &Path) -> Result<Self, OpenError> {
        let part = Part::open(path)?;
        let header = parse(&part, Keep::NoVocabulary)?;
        Ok(Self { part, header })
    }

    /// The place that the file says it has.
    fn place(&self) -> Result<Place, OpenError> {
        let metadata = &self.header.metadata;
        let wrong = |error: MetadataError| {
            split_error(&self.part.path, format!("{} {}", error.key, error.expected), error.found)
        };
        let count = metadata.u32_or("split.count", 1).map_err(wrong)?;
        let number = metadata.u32_or("split.no", 0).map_err(wrong)?;
        let tensors = metadata.get_u64("split.tensors.count").map_err(wrong)?;
        if count > PARTS_MAX {
            let expected = format!("split.count of at most {PARTS_MAX}");
            return Err(split_error(&self.part.path, expected, count.to_string()));
        }
        // A count of 0 is that of a file that was joined again.
        let count = count.max(1);
        if number >= count {
            let expected = format!("split.no below split.count, {count}");
            return Err(split_error(&self.part.path, expected, number.to_string()));
        }
        Ok(Place { number, count, tensors })
    }

    fn fingerprint(&self) -> Result<Fingerprint, OpenError> {
        let Self { part, header } = self;
        let tensors = header.tensors.iter().map(|tensor| tensor.offset..tensor.end());
        let digest = fingerprint::of_file(&part.file, header.file_bytes, header.data_offset, tensors);
        digest.map_err(|cause| OpenError::Read { path: part.path.clone(), cause })
    }
}

/// Maps the whole file, reads its header, and unmaps it: only the header's pages are ever touched.
fn parse(part: &Part, keep: Keep) -> Result<gguf::GgufHeader, OpenError> {
    let read = |cause| OpenError::Read { path: part.path.clone(), cause };
    let mapping = Mapping::of_whole(part).map_err(read)?;
    gguf::GgufHeader::parse_keeping(mapping.bytes(), keep)
        .map_err(|cause| OpenError::Gguf { path: part.path.clone(), cause })
}

/// The names of a split model's files.
struct FileNames {
    folder: PathBuf,
    name: String,
    count: u32,
}

// === impl FileNames ===

impl FileNames {
    /// The names of the set that the file at `path`, part `place` of it, belongs to.
    fn of(path: &Path, place: Place) -> Result<Self, OpenError> {
        let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let ending = ending(place.number, place.count);
        let Some(name) = file.strip_suffix(&ending) else {
            let expected = format!("a name that ends in {ending}, by which the other parts are found");
            return Err(split_error(path, expected, file));
        };
        let folder = path.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { folder, name: name.to_owned(), count: place.count })
    }

    fn path(&self, number: u32) -> PathBuf {
        self.folder.join(format!("{}{}", self.name, ending(number, self.count)))
    }
}

/// The end of a part's name.
fn ending(number: u32, count: u32) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}
