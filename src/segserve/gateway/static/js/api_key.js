// What an API key may look like: it goes with requests as a header.

/** What is wrong with a key, in words; empty where it can be sent. */
export function problemOf(key) {
  const letters = [...key];
  const at = letters.findIndex((letter) => !/[ -~]/.test(letter));
  if (at < 0) return "";
  const code = letters[at].codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return (
    `Character ${at + 1} of the key (U+${code}) is none that a key can have: it has letters, digits and signs of ` +
    "ASCII only. Copy the key again, without anything around it."
  );
}
