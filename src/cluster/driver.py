

class Again(Exception):
    """The same command goes on later."""


class Failed(Exception):
    """Trying again cannot help."""


@ray.remote
def task(name, commands, *after):
    for command in commands:
        ended = subprocess.run(command, cwd=WORKING, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        print(f"# {name}: exit {ended.returncode}\n{ended.stdout}", flush=True)
        if ended.returncode in FINAL:
            raise Failed(f"{name}: exit {ended.returncode}: {ended.stdout[-2000:]}")
        if ended.returncode != 0:
            raise Again(f"{name}: exit {ended.returncode}: {ended.stdout[-2000:]}")
    return name


def main():
    ray.init()
    refs = []
    for one in TASKS:
        after = [ref for other in one["after"] for ref in refs[other]]
        options = dict(max_retries=REQUEUES, retry_exceptions=[Again], **one["resources"])
        refs.append([
            task.options(name=one["name"], **options).remote(
                f"{one['name']} {part}/{one['parts']}",
                [[word.replace(PART, str(part)) for word in command] for command in one["commands"]],
                *after,
            )
            for part in range(one["parts"])
        ])
    for one in refs:
        ray.get(one)


if __name__ == "__main__":
    main()
