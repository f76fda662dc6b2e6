from enum import IntEnum

class AnswerFlag(IntEnum):
    ANSWER_CLOSE = 1
    ANSWER_HTTP_10 = 2
    ANSWER_NO_BODY = 4
    ANSWER_KEEP_ALIVE = 8
