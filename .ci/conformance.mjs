// Runs the tests of the npm package http-cache-tests, found in the folder named first, through the server at the URL
// named second, and prints what each is and how it went as JSON. What the outcomes are worth, .ci/conformance.py decides.
// With further arguments, runs only the tests of these names, and prints their requests and responses on standard error.

import { createRequire } from 'node:module'
import path from 'node:path'
import { pathToFileURL } from 'node:url'

const [folder, base, ...only] = process.argv.slice(2)
const part = name => import(pathToFileURL(path.join(folder, name)).href)
const { default: fetch } = await import(pathToFileURL(createRequire(path.join(folder, 'cli.mjs')).resolve('node-fetch')).href)
const { runTests, getResults } = await part('client/runner.mjs')
const { default: suites } = await part('tests/index.mjs')
const { default: surrogate } = await part('tests/surrogate-control.mjs')

const chosen = [...suites, surrogate].map(suite => ({
  ...suite,
  tests: suite.tests
    .filter(test => !test.browser_only && (only.length === 0 || only.includes(test.id)))
    .map(test => ({ ...test, dump: only.length > 0 }))
}))
console.log = console.error
// A hundred tests run at a time. Those in which the origin dies stand together in the suite, and are dealt out here: five
// failures in a row would open the circuit breaker, as they should, and take the other tests along.
const CHUNK = 100
const all = chosen.flatMap(suite => suite.tests)
const chunks = Math.ceil(all.length / CHUNK)
const dealt = Array.from({ length: chunks }, (_, chunk) => all.filter((_, at) => at % chunks === chunk)).flat()
await runTests([{ tests: dealt }], fetch, false, base, CHUNK)
const results = getResults()
const tests = chosen.flatMap(suite => suite.tests.map(({ id, name, kind = 'required', depends_on: needs = [] }) => (
  { id, name, kind, needs, result: results[id] }
)))
process.stdout.write(JSON.stringify(tests))
