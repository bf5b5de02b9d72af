"""The method ``none``: pages as they are."""

from __future__ import annotations

from numcodecs_qpl.multifd.hooks import MultiFDMethods, RecvParams, SendParams, check_method


class NoneMethods(MultiFDMethods):
    """The hooks of ``none``. It keeps no state, and sends and receives guest memory without a copy."""

    def send_setup(self, params: SendParams) -> None:
        """Nothing to make."""

    def send_cleanup(self, params: SendParams) -> None:
        """Nothing to let go of."""

    def send_prepare(self, params: SendParams) -> None:
        """The pages themselves are the payload."""
        pages = params.pages
        params.iov = pages.block.runs(pages.normal) if pages.block else []
        params.next_packet_size = len(pages.normal) * params.page_size

    def recv_setup(self, params: RecvParams) -> None:
        """Nothing to make."""

    def recv_cleanup(self, params: RecvParams) -> None:
        """Nothing to let go of."""

    def recv_pages(self, params: RecvParams) -> None:
        """Read the pages to where they belong."""
        check_method(params, 0)
        if params.pages.block:
            params.read_into(params.pages.block.runs(params.pages.normal))

    def get_iov_count(self, page_count: int) -> int:
        """A buffer for each page, where no two are neighbours."""
        return page_count
