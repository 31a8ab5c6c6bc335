"""The tools that come with the server: each file here has a function `tools`, and is found by being here.

    def tools(host: ToolHost) -> list[Tool]:
        @tool()
        async def roll_dice(context: ToolContext, sides: Annotated[int, Field(ge=2, le=1000)] = 6) -> str:
            \"\"\"Roll a die.

            Takes:
                sides: how many it has.
            \"\"\"
            return str(random.randint(1, sides))

        return [roll_dice]

What the owner may set of a tool stands in a class of `xiaozhi.settings.tools`.
"""
