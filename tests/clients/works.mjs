// The frame of the scripts for Node.js in this folder: what they are called with, and how they check.
//
// A script defines a class `Works`. It is made with the server's URL; its methods, but for those that begin with `_`,
// are the works.

import { isDeepStrictEqual, inspect } from 'node:util';

/** The end of a script at its first check that fails. */
class CheckFailed extends Error {}

/** Prints what was checked. Ends the script with 1 if the condition does not hold. */
export function check(what, condition, found = '') {
  console.log(`${condition ? 'ok  ' : 'FAIL'}  ${what}`);
  if (!condition) {
    console.log(`      found: ${typeof found === 'string' ? found : inspect(found, { depth: 6 })}`);
    throw new CheckFailed(what);
  }
}

/** Checks that two values are alike. */
export function same(what, found, expected) {
  check(what, isDeepStrictEqual(found, expected), { found, expected });
}

/** Checks that the call throws what `isExpected` accepts, and returns it. */
export async function raised(what, isExpected, call) {
  let found;
  try {
    found = await call();
  } catch (error) {
    check(what, isExpected(error), error);
    return error;
  }
  check(what, false, found);
}

/** The items of an asynchronous iterable. */
export async function collect(items) {
  const collected = [];
  for await (const item of items) collected.push(item);
  return collected;
}

/** The model's name. */
export async function served(url) {
  const answer = await fetch(`${url}/v1/models`);
  return (await answer.json()).data[0].id;
}

/** Runs the works that the command line names, or all. */
export async function run(Works, description) {
  const isWork = (name) => name !== 'constructor' && !name.startsWith('_');
  const names = Object.getOwnPropertyNames(Works.prototype).filter(isWork);
  const words = process.argv.slice(2);
  const at = words.indexOf('--url');
  const [, url] = at < 0 ? [] : words.splice(at, 2);
  if (words.some((word) => !names.includes(word))) {
    console.log(`${description}\nusage: [--url URL] [WORK ...], of ${names.join(', ')}`);
    process.exitCode = 2;
    return;
  }
  try {
    const place = url ?? 'http://127.0.0.1:8100';
    const works = new Works(place, await served(place));
    for (const name of words.length ? words : names) {
      console.log(`--- ${name}`);
      await works[name]();
    }
  } catch (error) {
    if (!(error instanceof CheckFailed)) console.log(error);
    process.exitCode = 1;
  }
}
