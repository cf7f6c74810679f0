// The run's last word in one plain line, and what was skipped by name: a missing peer must not pass unseen.
export default class SummaryReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const tests = modules.flatMap(module => [...module.children.allTests()])
    const count = state => tests.filter(test => test.result().state === state).length
    // A file that does not even load has failed too, though it has no test.
    const broken = modules.filter(module => module.state() === 'failed' && module.errors().length > 0).length
    const failed = count('failed') + broken + unhandledErrors.length
    const skipped = tests.filter(test => test.result().state === 'skipped')
    const peers = new Set(skipped.flatMap(test => /skipped: (needs .*)\]/.exec(test.fullName)?.[1] ?? []))
    for (const hint of peers) process.stdout.write(`Skipped tests: ${hint}\n`)
    process.stdout.write(`${count('passed')} passed, ${failed} failed, ${skipped.length} skipped\n`)
  }
}
