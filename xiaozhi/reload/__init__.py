"""New settings for a running server, without losing a turn.

There is one `Services` for the life of the process, and it is changed in one step: engines that other settings need
are built and warmed beside those in use, and when all of them are ready they are put into their places together
with the settings, without an `await` in between. If one of them cannot be built nothing is changed. Conversations
read `services` when a turn begins, so the next turn has them; a reply or utterance under way keeps the engine it
has, which is closed when its last user is gone (`xiaozhi.concurrency.retirement`). The field of a setting says
when a change takes effect (`xiaozhi.settings.section.Applies`), and its table which engine is built anew for it.

`reloader` is the way in for the console, the signal and the file, and compares settings; `parts` builds and exchanges;
`watch` looks at the file.
"""
