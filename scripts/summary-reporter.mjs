// The run's last word in one plain line, and before it what was skipped, by name: a missing peer must not pass unseen.
const LABEL = / \[skipped: needs ([^;\]]*); install with: ([^\]]*)\]/

export default class SummaryReporter {
  onTestRunEnd(modules, unhandledErrors) {
    const tests = modules.flatMap(module => [...module.children.allTests()])
    const count = state => tests.filter(test => test.result().state === state).length
    // A file that does not even load has failed too, though it has no test.
    const broken = modules.filter(module => module.state() === 'failed' && module.errors().length > 0).length
    const failed = count('failed') + broken + unhandledErrors.length
    const skipped = tests.filter(test => test.result().state === 'skipped')
    this.#tellSkipped(skipped.map(test => test.fullName))
    process.stdout.write(`${count('passed')} passed, ${failed} failed, ${skipped.length} skipped\n`)
  }

  /** Suites by name, then once how to have what they miss. */
  #tellSkipped(names) {
    const suites = new Set()
    const commands = new Set()
    for (const name of names) {
      const [label, peers, command] = LABEL.exec(name) ?? []
      suites.add(label === undefined ? name : `${name.slice(0, name.indexOf(label))} (needs ${peers})`)
      if (command !== undefined) commands.add(command)
    }
    for (const suite of suites) process.stdout.write(`skipped: ${suite}\n`)
    for (const command of commands) process.stdout.write(`what they need comes with: ${command}\n`)
  }
}
