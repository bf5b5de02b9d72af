"""The method ``none``: uncompressed pages."""

from __future__ import annotations

from numcodecs_qpl.multifd.hooks import MultiFDMethods, RecvParams, SendParams, check_method


class NoneMethods(MultiFDMethods):
    """Hooks of ``none``. They keep no state, and send and receive guest memory without a copy."""

    def send_setup(self, params: SendParams) -> None:
        """Do nothing: ``none`` has no state."""

    def send_cleanup(self, params: SendParams) -> None:
        """Do nothing: ``none`` has no state."""

    def send_prepare(self, params: SendParams) -> None:
        """Take the pages themselves as the payload."""
        pages = params.pages
        params.iov = pages.block.runs(pages.normal) if pages.block else []
        params.next_packet_size = len(pages.normal) * params.page_size

    def recv_setup(self, params: RecvParams) -> None:
        """Do nothing: ``none`` has no state."""

    def recv_cleanup(self, params: RecvParams) -> None:
        """Do nothing: ``none`` has no state."""

    def recv_pages(self, params: RecvParams) -> None:
        """Read the pages to their places in guest memory."""
        check_method(params, 0)
        if params.pages.block:
            params.read_into(params.pages.block.runs(params.pages.normal))

    def get_iov_count(self, page_count: int) -> int:
        """Return a buffer for each page, the number needed if no two pages are neighbours."""
        return page_count
