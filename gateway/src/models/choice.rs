//! The files of a repository that make a model: one GGUF file or all parts of a split one, or a Hugging Face folder.
//! Pure.

use stages::safetensors::SafetensorsIndex;

/// Quantisations that are taken if none is named, the first that there is. They are llama.cpp's.
const USUAL: [&str; 2] = ["Q4_K_M", "Q4_0"];
/// Name of the configuration of a folder.
const CONFIG: &str = "config.json";
/// Name of a folder's weights in one file, and of the list of several.
const WEIGHTS: [&str; 2] = ["model.safetensors", SafetensorsIndex::NAME];
/// Files of a folder besides, if they are there.
const TEXTS: [&str; 6] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "modules.json",
    "1_Pooling/config.json",
];

/// A model among the files of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// A GGUF file, or the parts of one, in order.
    Gguf(Vec<String>),
    /// The files of a folder.
    Folder(Vec<String>),
}

/// The model among `files` that `quant` names; without one the usual quantisation, then the first GGUF file, then the
/// folder. `None` if there is none.
pub(super) fn choose(files: &[String], quant: Option<&str>) -> Option<Choice> {
    let models: Vec<&String> = files.iter().filter(|file| is_model(file)).collect();
    let of = |quant: &str| models.iter().find(|file| has_quant(file, quant));
    let found = match quant {
        Some(quant) => of(quant),
        None => USUAL.iter().find_map(|quant| of(quant)).or(models.first()),
    };
    match found {
        Some(file) => {
            let parts = parts(file);
            parts.iter().all(|part| files.contains(part)).then_some(Choice::Gguf(parts))
        }
        None if quant.is_none() => folder(files).map(Choice::Folder),
        None => None,
    }
}

/// All parts of the model that `file` is a part of: itself, unless its name is that of a part.
pub(super) fn parts(file: &str) -> Vec<String> {
    match part_of(file) {
        Some((name, count)) => (1..=count).map(|part| part_name(name, part, count)).collect(),
        None => vec![file.to_owned()],
    }
}

/// The name of part `part`, from 1, of the model `name` in `count` files.
pub(crate) fn part_name(name: &str, part: u32, count: u32) -> String {
    format!("{name}-{part:05}-of-{count:05}.gguf")
}

/// The name of a file without its ending and the number of its part.
pub(super) fn stem(file: &str) -> &str {
    part_of(file).map_or_else(|| file.strip_suffix(".gguf").unwrap_or(file), |(name, _)| name)
}

/// The name before the number of a part, and the number of parts.
fn part_of(file: &str) -> Option<(&str, u32)> {
    /// As many files as a split model may have.
    const PARTS_MAX: u32 = 1024;
    let stem = file.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (name, number) = rest.rsplit_once('-')?;
    let read = |digits: &str| digits.parse::<u32>().ok().filter(|_| digits.len() == 5);
    let (number, count) = (read(number)?, read(count)?);
    ((1..=count.min(PARTS_MAX)).contains(&number) && count <= PARTS_MAX).then_some((name, count))
}

/// True for a GGUF file of a model of language that is not a later part.
fn is_model(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file).to_ascii_lowercase();
    let other = ["mmproj", "imatrix"].iter().any(|other| name.contains(other));
    name.ends_with(".gguf") && !other && parts(file).first().is_some_and(|first| first == file)
}

/// True if the name spells this quantisation, in either case, and goes on behind it with `.` or `-`.
fn has_quant(file: &str, quant: &str) -> bool {
    let (file, quant) = (file.to_ascii_uppercase(), quant.to_ascii_uppercase());
    let at = |(start, _): (usize, &str)| {
        let before = file[..start].chars().next_back();
        let after = file[start + quant.len()..].chars().next();
        before.is_none_or(|before| !before.is_ascii_alphanumeric()) && matches!(after, Some('.' | '-'))
    };
    file.match_indices(&quant).any(at)
}

/// The files of a folder: configuration, weights, and what belongs to them.
fn folder(files: &[String]) -> Option<Vec<String>> {
    let here = |name: &&str| files.iter().any(|file| file == name);
    let weights = WEIGHTS.iter().find(|name| here(name))?;
    if !here(&CONFIG) {
        return None;
    }
    let mut all: Vec<String> = vec![CONFIG.to_owned(), (*weights).to_owned()];
    all.extend(TEXTS.iter().filter(|name| here(name)).map(|name| (*name).to_owned()));
    if *weights == WEIGHTS[1] {
        // The files in the repository's root that the list may name.
        all.extend(files.iter().filter(|file| file.ends_with(".safetensors") && !file.contains('/')).cloned());
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(files: &[&str], quant: Option<&str>) -> Option<Choice> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        choose(&files, quant)
    }

    fn gguf(files: &[&str]) -> Option<Choice> {
        Some(Choice::Gguf(files.iter().map(|file| (*file).to_owned()).collect()))
    }

    #[test]
    fn a_quantisation_is_found_in_either_case_and_not_as_a_part_of_another() {
        let files =
            ["m-IQ4_XS.gguf", "m-Q4_K.gguf", "m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf", "mmproj-Q8_0.gguf", "README.md"];
        assert_eq!(chosen(&files, None), gguf(&["m-Q4_K_M.gguf"]));
        assert_eq!(chosen(&files, Some("q4_k")), gguf(&["m-Q4_K.gguf"]));
        assert_eq!(chosen(&files, Some("UD-Q4_K_XL")), gguf(&["m-UD-Q4_K_XL.gguf"]));
        assert_eq!(chosen(&files, Some("Q4_XS")), None, "it is IQ4_XS");
        assert_eq!(chosen(&files, Some("Q8_0")), None, "that is for images");
        assert_eq!(
            chosen(&["m.f16.gguf", "m.q8_0.gguf"], None),
            gguf(&["m.f16.gguf"]),
            "the first, without a usual one"
        );
        assert_eq!(chosen(&["b/M-Q4_0.gguf", "a.gguf"], None), gguf(&["b/M-Q4_0.gguf"]));
    }

    #[test]
    fn a_split_model_is_all_of_its_parts_or_nothing() {
        let files = ["Q8_0/m-Q8_0-00001-of-00002.gguf", "Q8_0/m-Q8_0-00002-of-00002.gguf"];
        assert_eq!(chosen(&files, Some("Q8_0")), gguf(&files));
        assert_eq!(chosen(&files[1..], Some("Q8_0")), None);
        assert_eq!(parts("m-00003-of-00002.gguf"), ["m-00003-of-00002.gguf"], "there is no such part");
        assert_eq!(parts("m-00001-of-99999.gguf").len(), 1);
        assert_eq!((stem("m-00001-of-00002.gguf"), stem("m.gguf"), stem("m")), ("m", "m", "m"));
    }

    #[test]
    fn a_folder_is_taken_where_there_is_no_gguf_file() {
        let files = ["config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "onnx/model.onnx"];
        let expected = ["config.json", "model.safetensors", "tokenizer.json"].map(str::to_owned).to_vec();
        assert_eq!(chosen(&files, None), Some(Choice::Folder(expected)));
        assert_eq!(chosen(&files, Some("Q4_0")), None, "a folder has no quantisations");
        assert_eq!(chosen(&["model.safetensors"], None), None, "it has no configuration");
        let index = SafetensorsIndex::NAME;
        let files = ["config.json", "model-00001-of-00001.safetensors", index, "extra/x.safetensors"];
        let Some(Choice::Folder(found)) = chosen(&files, None) else { panic!("no folder") };
        assert_eq!(found, ["config.json", index, "model-00001-of-00001.safetensors"]);
    }
}
