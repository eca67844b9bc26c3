import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CyclicBarrier;
import javax.crac.Context;
import javax.crac.Core;
import javax.crac.Resource;

/** Has two threads register the same resources of {@code javax.crac}, and counts how often each is told. */
public final class Registered {
    private static final int RESOURCES = 10_000;

    private Registered() {}

    private static final class Counting implements Resource {
        private int before;
        private volatile int after;

        @Override
        public void beforeCheckpoint(Context<? extends Resource> context) {
            before++;
        }

        @Override
        public void afterRestore(Context<? extends Resource> context) {
            after++;
        }
    }

    private static void meet(CyclicBarrier barrier) {
        try {
            barrier.await();
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    public static void main(String[] args) throws Exception {
        List<Counting> resources = new ArrayList<>();
        for (int i = 0; i < RESOURCES; i++) {
            resources.add(new Counting());
        }
        CyclicBarrier together = new CyclicBarrier(2);
        Runnable register = () -> {
            for (int i = 0; i < RESOURCES; i++) {
                if (i % 100 == 0) {
                    meet(together);
                }
                Core.getGlobalContext().register(resources.get(i));
            }
        };
        Thread other = new Thread(register);
        other.start();
        register.run();
        other.join();
        // The last of all, so that it is the last to hear of the restore.
        Counting last = new Counting();
        Core.getGlobalContext().register(last);
        Life.ready();
        Life.hear();
        Life.eventually("after-hooks", () -> last.after == 1);
        Life.same("not told once before", 0L, resources.stream().filter(it -> it.before != 1).count());
        Life.same("not told once after", 0L, resources.stream().filter(it -> it.after != 1).count());
        Life.verdict();
    }
}
