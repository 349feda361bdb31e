from fabrica.cli import main

main()
