import { type Command, Option } from 'commander'

/** The options that say where a domain, its checkpoints and its images are (see `DomainOptions`). */
export function domainArguments(command: Command): Command {
  return placeArguments(command.option('--domain <name>', "a domain in libvirt's folders"))
}

/** Those that do not name it. */
export function placeArguments(command: Command): Command {
  return command
    .option('--libvirt-root <dir>', 'another root that holds qemu/NAME.xml and qemu/checkpoint/NAME/')
    .option('--domain-xml <file>', "the domain's XML, instead of --domain")
    .option('--checkpoint-dir <dir>', 'the folder of its checkpoints, with --domain-xml')
    .option(
      '--map-source <old=new>',
      'where images are now that were copied; prefixes count; repeatable',
      collect,
    )
}

export function dialectArgument(command: Command): Command {
  const text = "how bitmaps share the work; else found from the bitmaps' flags"
  return command.addOption(
    new Option('--dialect <dialect>', text).choices(['independent', 'chained', 'auto']),
  )
}

/** Of an option that may be repeated. */
export function collect(value: string, all: readonly string[] | undefined): readonly string[] {
  return [...(all ?? []), value]
}
