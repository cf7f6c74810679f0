import { describe, expect, it } from 'vitest'
import { bin, tidemark, tidemarkError } from './cli.js'
import { planArgs, top } from './webshop.js'

/** Arguments and what the message must say. */
const mistakes: readonly (readonly [string, readonly string[], string])[] = [
  ['no command', [], 'info, map, dump, plan, bitmap, recover'],
  ['no command of a group', ['plan'], 'plan backup'],
  ['no command of checkpoint', ['checkpoint'], 'list, show, reconcile, redefine'],
  ['an unknown command of checkpoint', ['checkpoint', 'reconcil'], "did you mean 'reconcile'?"],
  ['show what', ['checkpoint', 'show', '--domain', 'x'], 'checkpoint'],
  ['checkpoints of which domain', ['checkpoint', 'list'], 'which domain?'],
  ['--force that overwrites nothing', ['checkpoint', 'redefine', '--domain', 'x', '--force'], '-o'],
  [
    'bitmaps, and none',
    ['checkpoint', 'redefine', '--domain', 'x', '--no-bitmaps', '--bitmap', 'b'],
    'give one of them',
  ],
  ['an unknown command', ['inof', 'x'], "unknown command 'inof'; did you mean 'info'?"],
  ['an unknown command of a group', ['plan', 'bakup'], "unknown command 'bakup'; did you mean 'backup'?"],
  ['an unknown command like no other', ['xyzzy'], "unknown command 'xyzzy'"],
  ['an unknown option', ['info', '--cuont', 'x'], "unknown option '--cuont'; did you mean '--count'?"],
  ['an unknown option, a needed one missing', ['map', 'x', '--bitmp', 'b'], "did you mean '--bitmap'?"],
  ['an unknown option of plan', ['plan', 'backup', '--domian', 'x'], "did you mean '--domain'?"],
  ['no file', ['info'], 'file'],
  ['an empty name of a file', ['info', ''], 'empty'],
  ['two files', ['info', 'a', 'b'], 'too many arguments'],
  ...['--op xor', '--granularity 1M', '--count', '--dirty', '--with-data', '--force', '--backing-chain'].map(
    option =>
      [
        `map ${option} without a bitmap`,
        ['map', 'x', ...option.split(' ')],
        `${option.split(' ')[0]} is for bitmaps: give --bitmap NAME`,
      ] as const,
  ),
  [
    'a bitmap of a snapshot',
    ['map', 'x', '--bitmap', 'b', '--snapshot', 's'],
    'as it is now, not as in a snapshot',
  ],
  [
    'how much, and where',
    ['map', 'x', '--bitmap', 'b', '--count', '--with-data'],
    '--with-data adds nothing',
  ],
  ...['map x --bitmap b', 'info x'].map(
    command =>
      [
        `${command}: a chain that may not be opened`,
        [...command.split(' '), '--backing-chain', '--no-backing'],
        'give one of them',
      ] as const,
  ),
  ...['map x', 'dump x -o y', 'info x'].map(
    command =>
      [
        `${command}: nothing may be opened, and something`,
        [...command.split(' '), '--no-backing', '--allow', '/'],
        'give one of them',
      ] as const,
  ),
  ['nothing that may be opened', ['map', 'x', '--allow', ''], 'the name of a folder'],
  ['dump without a file', ['dump'], 'file'],
  ['dump to nowhere', ['dump', bin, '-o', ''], 'empty'],
  ['a dump of a bitmap of a snapshot', ['dump', 'x', '--bitmap', 'b', '--snapshot', 's'], 'snapshot'],
  ['dump --force without a bitmap', ['dump', 'x', '--force'], '--force is for bitmaps'],
  ['an unknown option of dump', ['dump', 'x', '--ofset', '1'], "did you mean '--offset'?"],
  ...['--offset', '--length'].flatMap(option =>
    ['-1', '1.5', 'x', '64kB', '9P9'].map(
      size => [`${option} ${size}`, ['dump', 'x', `${option}=${size}`], option.slice(2)] as const,
    ),
  ),
  ['a bad --output', ['info', 'x', '--output', 'yaml'], 'human, json'],
  ['a bad operation', ['map', 'x', '--bitmap', 'b', '--op', 'or'], 'union, intersection, difference, xor'],
  ['a bad format', ['map', 'x', '--bitmap', 'b', '--format', 'xml'], 'json, ndjson'],
  ...['100', '256', '4G', '3k', '0', '-1', 'x', '1.5', '64kB', '1e3', ' 64k', '1E'].map(
    size =>
      [`--granularity ${size}`, ['map', 'x', '--bitmap', 'b', '--granularity', size], 'granularity'] as const,
  ),
  ['bitmap: no action', ['bitmap', bin, 'b'], 'at least one of --add, --remove, --clear'],
  ['bitmap: no bitmap', ['bitmap', '--add', bin], "missing required argument 'name'"],
  ['bitmap: an empty name', ['bitmap', '--add', bin, ''], 'the name of the bitmap is empty'],
  ['bitmap: no image', ['bitmap', '--add', '', 'b'], 'the name of the image is empty'],
  ['bitmap: three names', ['bitmap', '--add', bin, 'b', 'c'], 'too many arguments'],
  ['bitmap -g without --add', ['bitmap', '--remove', '-g', '64k', bin, 'b'], '-g is for --add'],
  ['bitmap -b without --merge', ['bitmap', '--add', '-b', bin, bin, 'b'], '-b is the image that --merge'],
  ['bitmap -b of nothing', ['bitmap', '--merge', 's', '-b', '', bin, 'b'], 'merge from is empty'],
  ['bitmap -F without -b', ['bitmap', '--merge', 's', '-F', 'qcow2', bin, 'b'], '-F is the format of -b'],
  ['bitmap of a raw image', ['bitmap', '--add', '-f', 'raw', bin, 'b'], '-f raw: only qcow2 images'],
  [
    'bitmap from a raw image',
    ['bitmap', '--merge', 's', '-b', bin, '-F', 'raw', bin, 'b'],
    '-F raw: only qcow2 images',
  ],
  ['bitmap --image-opts', ['bitmap', '--add', '--image-opts', bin, 'b'], '--image-opts is not supported'],
  ['bitmap --object', ['bitmap', '--add', '--object', 'secret,id=s', bin, 'b'], '--object is not supported'],
  ['bitmap -q, which qemu-img bitmap has not', ['bitmap', '--add', '-q', bin, 'b'], "unknown option '-q'"],
  ['bitmap -U', ['bitmap', '--add', '-U', bin, 'b'], '-U is for --dry-run'],
  [
    'bitmap: no lock for a dry run',
    ['bitmap', '--add', '--dry-run', '--unsafe-no-lock', bin, 'b'],
    '--dry-run takes no lock',
  ],
  ['bitmap: an unknown action', ['bitmap', '--ad', bin, 'b'], "did you mean '--add'?"],
  ...['100', '4G', '3k', '0x300', '-1', 'x', '64kB'].map(
    size => [`bitmap -g ${size}`, ['bitmap', '--add', `-g${size}`, bin, 'b'], 'granularity'] as const,
  ),
  ['no checkpoint', ['plan', 'backup', '--domain', 'x'], 'Give --incremental CHECKPOINT'],
  ['no domain', ['plan', 'backup', '--incremental', 'c'], 'Give --domain NAME, or --domain-xml FILE'],
  [
    'both domains',
    ['plan', 'backup', '--incremental', 'c', '--domain', 'd', '--domain-xml', 'f', '--checkpoint-dir', 'e'],
    'not both',
  ],
  ['half a domain', ['plan', 'backup', '--incremental', 'c', '--domain-xml', 'f'], '--checkpoint-dir DIR'],
  ['a root without a domain', planArgs('monday').toSpliced(2, 2), 'which domain?'],
  ['a map rule without =', planArgs('monday', '--map-source', 'here'), 'OLD=NEW'],
  ['--pull without XML', planArgs('monday', '--pull'), '--format xml'],
]

describe('usage errors are told on stderr, with status 64', () => {
  it.each(mistakes)('%s', async (_, args, text) => {
    // --output yaml is its own mistake.
    if (!args.includes('--output')) {
      const { status, error } = await tidemarkError(args, { cwd: top })
      expect({ status, code: error.code }).toEqual({ status: 64, code: 'usage' })
      expect(error.message).toContain(text)
    }
    const human = await tidemark(args, { cwd: top })
    expect(human).toMatchObject({ status: 64, stdout: '' })
    expect(human.stderr).toMatch(/^error: [^\n]+\n$/)
    expect(human.stderr).toContain(text)
  })

  it('--output json counts in front of the command too, in either spelling; the last one wins', async () => {
    for (const args of [
      ['--output', 'json', 'inof'],
      ['--output=json', 'inof'],
      ['--output=human', 'plan', '--output', 'json', 'bakup'],
    ]) {
      expect((await tidemark(args)).stderr).toMatch(/^\{"error":\{"code":"usage"/)
    }
    expect((await tidemark(['inof', '--output=json', '--output', 'human'])).stderr).toMatch(/^error: /)
  })
})

describe('help', () => {
  it.each([
    [[]],
    [['info']],
    [['map']],
    [['dump']],
    [['bitmap']],
    [['recover']],
    [['plan']],
    [['plan', 'backup']],
  ])('%j --help has examples and exit statuses, in 80 columns', async command => {
    const { status, stdout, stderr } = await tidemark([...command, '--help'])
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' })
    expect(stdout).toMatch(/^Usage: tidemark/)
    expect(stdout).toContain('\nExamples:\n  tidemark ')
    expect(stdout).toContain('\nExit statuses:')
    for (const line of stdout.split('\n')) expect(line.length, line).toBeLessThanOrEqual(81)
  })
})
