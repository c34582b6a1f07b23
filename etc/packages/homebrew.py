"""A formula for a Homebrew tap, which installs the archive."""

import hashlib

FORMULA = """\
class Baton < Formula
  desc "Runs one language model across the machines you own"
  homepage "{url}"
  url "{url}/{archive}"
  sha256 "{sha256}"
  version "{version}"
  license any_of: ["MIT", "Apache-2.0"]

  depends_on {system}
  depends_on arch: :{machine}

  def install
    bin.install "bin/baton"
    man1.install Dir["share/man/man1/*.1"]
    bash_completion.install "completions/baton.bash" => "baton"
    zsh_completion.install "completions/baton.zsh" => "_baton"
    fish_completion.install "completions/baton.fish"
    (etc/"baton").install "etc/baton.toml"
  end

  test do
    assert_match "baton #{{version}}", shell_output("#{{bin}}/baton --version")
  end
end
"""


def build(release, archive, url, out):
    folder = out / "homebrew"
    folder.mkdir(exist_ok=True)
    machine = {"x86_64": "x86_64", "aarch64": "arm64"}[release.machine]
    text = FORMULA.format(
        url=url.rstrip("/"), archive=archive.name, sha256=hashlib.sha256(archive.read_bytes()).hexdigest(),
        version=release.version, system=":linux" if release.system == "linux" else ":macos", machine=machine)
    path = folder / "baton.rb"
    path.write_text(text)
    return path
